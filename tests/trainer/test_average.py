"""The moving average is what a plain loop makes of the weights, at every ZeRO stage, and begins and resumes exactly."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import engine, whole_batch

from trainer.checkpoint.choice import read_weights
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig, joint_problems
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig
from trainer.engine.engine import Engine
from trainer.run_state import Averaged, RunState

DECAY = 0.9
EMA = EmaConfig(decay=DECAY, every_steps=2, evaluate=True)


def tensors(trained: Engine, kind: str) -> dict[str, Tensor]:
    """Return copies of the tensors of a kind; a process alone writes all of them."""
    return {name: tensor.clone() for name, tensor in trained.snapshot()[kind].items()}


def of_trained(trained: Engine) -> dict[str, Tensor]:
    """Return the network's own tensors, as an evaluation finds them."""
    network = trained.network.module
    assert isinstance(network, torch.nn.Module)
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stage", range(4))
def test_the_average_is_that_of_a_plain_loop_and_the_weights_come_back_to_the_last_bit(
    world: World, stage: int
) -> None:
    trained, without = (engine(world, zero_stage=stage, ema=ema) for ema in (EMA, None))
    expected = {name: torch.zeros_like(tensor) for name, tensor in tensors(trained, "ema").items()}
    for step in range(5):
        # A step that is skipped leaves the weights as they are; they are averaged all the same.
        batch = whole_batch(step)
        if step == 3:
            batch.arrays["points"][0, 0, 0] = torch.nan
        assert trained.step(batch).is_skipped == without.step(batch).is_skipped == (step == 3)
        weights = tensors(trained, "weight")
        if step % 2 == 1:
            expected = {name: DECAY * old + (1 - DECAY) * weights[name] for name, old in expected.items()}
    assert equal(tensors(trained, "ema"), expected)
    assert equal(weights, tensors(without, "weight"))
    assert trained.progress().average == Averaged(DECAY, 2)
    if stage < 3:
        before = of_trained(trained)
        with trained.evaluated():
            used = of_trained(trained)
        assert all(torch.equal(used[name], tensor / (1 - DECAY**2)) for name, tensor in expected.items())
        assert equal(of_trained(trained), before)
    assert trained.step(whole_batch(5)).loss == without.step(whole_batch(5)).loss
    trained.close()
    without.close()


def test_an_evaluation_at_zero_3_sees_the_average_too(world: World) -> None:
    losses = {}
    for name, ema in (("ema", EMA), ("trained", EmaConfig(decay=DECAY))):
        trained = engine(world, zero_stage=3, ema=ema)
        for step in range(4):
            trained.step(whole_batch(step))
        trained.network.eval()
        with trained.evaluated(), torch.no_grad():
            losses[name] = trained.network(whole_batch(9).arrays, whole_batch(9).lengths)["label"].clone()
        trained.network.train()
        losses[f"{name} then"] = torch.tensor(trained.step(whole_batch(4)).loss)
        trained.close()
    assert not torch.allclose(losses["ema"], losses["trained"])
    assert torch.equal(losses["ema then"], losses["trained then"])


def test_before_the_first_update_the_weights_are_evaluated(world: World) -> None:
    trained = engine(world, ema=EMA)
    trained.step(whole_batch(0))
    before = of_trained(trained)
    with trained.evaluated():
        assert equal(of_trained(trained), before)
    trained.close()


def saved(folder: Path, world: World, ema: EmaConfig | None) -> dict[str, Tensor]:
    """Train four steps with such an average, save, and return the tensors of the average."""
    trained, store = engine(world, ema=ema), Store(folder, CheckpointConfig(asynchronous=False), world)
    for step in range(4):
        trained.step(whole_batch(step))
    store.save(trained, RunState(step=4))
    kept = tensors(trained, "ema") if ema else {}
    trained.close()
    store.close()
    return kept


def loaded(folder: Path, world: World, ema: EmaConfig | None) -> Engine:
    made, store = engine(world, seed=5, ema=ema), Store(folder, CheckpointConfig(), world)
    made.step(whole_batch(7))
    made.step(whole_batch(8))
    assert store.load(made) is not None
    store.close()
    return made


def test_a_checkpoint_is_read_with_its_average_corrected_and_all_else_as_it_is(tmp_path: Path, world: World) -> None:
    average = saved(tmp_path, world, EMA)
    found, weights = (read_weights(tmp_path, "newest", world, which) for which in ("ema", "trained"))
    assert (found.which, weights.which) == ("ema", "trained")
    assert found.tensors.keys() == weights.tensors.keys()
    for name, tensor in found.tensors.items():
        # Buffers and frozen parameters are not averaged.
        expected = average[name] / (1 - DECAY**2) if name in average else weights.tensors[name]
        assert torch.equal(tensor, expected)
    assert weights.tensors.keys() - average.keys() == {"frozen", "offset"}


@pytest.mark.parametrize(("ema", "sentence"), [(None, "holds no moving average"), (EmaConfig(0.9, 9), "ema.every_ste")])
def test_an_average_that_is_not_there_is_refused(
    tmp_path: Path, world: World, ema: EmaConfig | None, sentence: str
) -> None:
    saved(tmp_path, world, ema)
    with pytest.raises(ValueError, match=f"step_00000004: .*{sentence}.*--weights trained"):
        read_weights(tmp_path, "newest", world, "ema")
    with pytest.raises(ValueError, match="--weights raw: expected trained or ema"):
        read_weights(tmp_path, "newest", world, "raw")


@pytest.mark.parametrize("before", [None, EmaConfig(decay=0.5)])
def test_an_average_with_another_decay_or_none_begins_anew(
    tmp_path: Path, world: World, before: EmaConfig | None
) -> None:
    saved(tmp_path, world, before)
    made = loaded(tmp_path, world, EMA)
    assert made.progress().average == Averaged(DECAY, 0)
    assert not any(tensor.any() for tensor in tensors(made, "ema").values())
    made.step(whole_batch(4))
    made.step(whole_batch(5))
    weights = tensors(made, "weight")
    assert all(torch.equal(tensor, (1 - DECAY) * weights[name]) for name, tensor in tensors(made, "ema").items())
    made.close()


def test_a_run_without_an_average_takes_a_checkpoint_that_has_one(tmp_path: Path, world: World) -> None:
    saved(tmp_path, world, EMA)
    made = loaded(tmp_path, world, None)
    assert "ema" not in made.snapshot()
    made.close()


@pytest.mark.parametrize(
    ("ema", "key"),
    [
        (EmaConfig(decay=1.0), "decay"),
        (EmaConfig(every_steps=0), "every_steps"),
        (EmaConfig(evaluate=True), "evaluate"),
    ],
)
def test_an_average_that_contradicts_itself_is_refused(ema: EmaConfig, key: str) -> None:
    assert [found for found, _ in ema.problems()] == [key]


def test_what_is_evaluated_is_the_average_where_it_is_asked_for_and_its_keys_have_bounds() -> None:
    assert (EmaConfig(0.9, evaluate=True).evaluated, EmaConfig(0.9).evaluated) == ("ema", "trained")
    for fine in (EmaConfig(), EmaConfig(0.0, every_steps=1), EmaConfig(1 - 1e-9, evaluate=True)):
        assert list(fine.problems()) == []
    assert [key for key, _ in EmaConfig(-0.1, every_steps=0).problems()] == ["every_steps", "decay"]
    assert EmaConfig() == EmaConfig(decay=0.0, every_steps=1, evaluate=False)


@pytest.mark.parametrize(
    ("ema", "sentence"),
    [
        (EmaConfig(0.9, every_steps=4, evaluate=True), None),
        (EmaConfig(0.9, every_steps=10), None),
        (EmaConfig(0.9, every_steps=11), "is 11, after the end of the run at step 10; lower it"),
        (EmaConfig(0.9, every_steps=5, evaluate=True), "is 5, after the first evaluation at step 4; lower it"),
        (EmaConfig(0.9, every_steps=5), None),
        (EmaConfig(0.0, every_steps=11), None),
    ],
)
def test_an_average_begins_before_it_is_needed(ema: EmaConfig, sentence: str | None) -> None:
    # Without evaluations in between, the only one is at the end.
    at_end = replace(ema, every_steps=11, decay=0.9)
    sentence_of_end = "is 11, after the end of the run at step 10; lower it"
    for every in (0, 10, 99):
        found = list(joint_problems(OptimizerConfig(), TrainConfig(steps=10, evaluate_every_steps=every), at_end))
        assert found == [("ema.every_steps", sentence_of_end)]
    found = list(joint_problems(OptimizerConfig(), TrainConfig(steps=10, evaluate_every_steps=4), ema))
    assert found == ([("ema.every_steps", sentence)] if sentence else [])
