"""A checkpoint holds whatever an optimizer keeps: tensors of any shape and type, counts, what it changes of groups."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from own_optimizers import OWN
from tiny import Network, engine, whole_batch

from data_shards.files.plugin_files import PluginError
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, EmaConfig, OptimizerConfig, TrainConfig, joint_problems
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.optim.optimizers import make
from trainer.optimizer_choice import OPTIMIZERS
from trainer.run_state import RunState


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for own in OWN:
        monkeypatch.setitem(OPTIMIZERS, own.name, own)


def config(name: str) -> OptimizerConfig:
    return OptimizerConfig(name, learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5, schedule="constant")


def train(trained: Engine, first: int, last: int) -> list[float]:
    return [trained.step(whole_batch(step)).loss for step in range(first, last)]


CASES = [("odd", 0), ("adafactor", 0), ("muon", 0), *((name, stage) for name in ("sgd", "means") for stage in range(4))]


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_a_run_resumes_to_the_last_bit_and_goes_back_to_a_state_before_the_first_step(
    tmp_path: Path, world: World, name: str, stage: int
) -> None:
    store = Store(tmp_path, CheckpointConfig(asynchronous=False), world)
    straight = engine(world, optimizer=config(name), zero_stage=stage)
    store.save(straight, RunState(step=0))
    begun = train(straight, 0, 3)
    assert store.load(straight) is not None
    assert train(straight, 0, 3) == begun
    store.save(straight, RunState(step=3))
    expected = train(straight, 3, 6)
    resumed = engine(world, seed=5, optimizer=config(name), zero_stage=stage, ema=EmaConfig(0.9))
    train(resumed, 0, 1)
    assert store.load(resumed) is not None
    assert train(resumed, 3, 6) == expected
    straight.close()
    resumed.close()
    store.close()


def test_the_files_have_each_tensor_as_the_optimizer_named_it(tmp_path: Path, world: World) -> None:
    trained, store = engine(world, optimizer=config("odd"), zero_stage=0), Store(tmp_path, CheckpointConfig(), world)
    train(trained, 0, 2)
    store.save(trained, RunState(step=2))
    store.close()
    found = {path.name.partition("-")[0]: load_file(path) for path in tmp_path.rglob("*.safetensors")}
    assert found.keys() == {"weight", "momentum", "rows", "scale"}
    shapes = {kind: (tuple(of["first.weight"].shape), of["first.weight"].dtype) for kind, of in found.items()}
    assert shapes["momentum"] == ((401, 33), torch.bfloat16)
    assert shapes["rows"] == ((401,), torch.float64)
    assert shapes["scale"] == ((), torch.float32)
    trained.close()


@pytest.mark.parametrize(("before", "after"), [("sgd", "means"), ("adamw", "sgd"), ("sgd", "adamw"), ("odd", "lamb")])
def test_the_state_of_another_optimizer_is_refused(tmp_path: Path, world: World, before: str, after: str) -> None:
    store = Store(tmp_path, CheckpointConfig(asynchronous=False), world)
    saved, other = (engine(world, optimizer=config(name), zero_stage=0) for name in (before, after))
    train(saved, 0, 1)
    store.save(saved, RunState(step=1))
    weights = saved.snapshot()["weight"]["last.bias"].clone()
    assert not torch.equal(other.snapshot()["weight"]["last.bias"], weights)
    with pytest.raises(ValueError, match="optimizer"):
        store.load(other)
    assert not torch.equal(other.snapshot()["weight"]["last.bias"], weights)
    saved.close()
    other.close()
    store.close()


def test_a_step_that_is_not_finite_changes_nothing(world: World) -> None:
    for name, stage in (("odd", 0), ("sgd", 1), ("muon", 0)):
        trained, without = (engine(world, optimizer=config(name), zero_stage=stage) for _ in range(2))
        broken = whole_batch(1)
        broken.arrays["points"][0, 0, 0] = torch.nan
        assert trained.step(whole_batch(0)).loss == without.step(whole_batch(0)).loss
        assert trained.step(broken).is_skipped
        assert train(trained, 2, 4) == train(without, 2, 4)
        trained.close()
        without.close()


def test_muon_is_that_of_pytorch_for_linear_layers_and_adamw_for_all_else() -> None:
    ours, plain = Network(seed=0), Network(seed=0)
    made = make(ours, OptimizerConfig("muon", 1e-2, weight_decay=0.1))
    matrices = [plain.first.weight, plain.last.weight]
    decayed = {"params": [plain.frozen], "weight_decay": 0.1}
    others = [plain.first.bias, plain.norm.weight, plain.norm.bias, plain.last.bias]
    optimizers = (
        made,
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([decayed, {"params": others, "weight_decay": 0.0}], lr=1e-2),
    )
    for step in range(3):
        generators = [torch.Generator().manual_seed(step) for _ in range(2)]
        for network, generator in zip((ours, plain), generators, strict=True):
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator) if parameter.requires_grad else None
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    assert {len(state) for state in made.state.values()} == {1, 3}


def test_muon_without_a_linear_layer_and_a_plug_ins_optimizer_of_other_groups_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="muon: the network has no linear layer that is trained; take adamw"):
        make(torch.nn.LayerNorm(3), OptimizerConfig("muon"))
    of_sgd = OPTIMIZERS["sgd"].make
    sgd = make(Network(seed=0), OptimizerConfig("sgd"))
    assert [group["first_step"] for group in sgd.param_groups] == [0, 0]
    for change in (
        lambda groups: groups[:1],
        lambda groups: [{**groups[0], "params": groups[0]["params"][:1]}, groups[1]],
        lambda groups: [{"params": group["params"]} for group in groups],
        lambda groups: [{**group, "rate_factor": 2.0} for group in groups],
    ):
        monkeypatch.setattr(OPTIMIZERS["sgd"], "make", lambda own, groups, rate: of_sgd(own, change(groups), rate))  # noqa: B023
        with pytest.raises(PluginError, match=r"make must give its optimizer the groups as they are"):
            make(Network(seed=0), OptimizerConfig("sgd"))


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [
        (OptimizerConfig("adam"), "name"),
        (OptimizerConfig("schedule_free"), "name"),
        (OptimizerConfig("adamw", options={"momentum": 0.5}), "options"),
        (OptimizerConfig("odd", options={"wish": 0.5}), "options.wish"),
        (OptimizerConfig("odd", options={"wished": "much"}), "options.wished"),
        (OptimizerConfig("odd", options={"wished": -1}), "options.wished"),
        (OptimizerConfig("odd", options={"wished": 2}), None),
        # Keys of the built-in ones, which an optimizer of a plug-in never sees.
        (OptimizerConfig("odd", beta1=0.8), "beta1"),
        (OptimizerConfig("odd", beta2=0.95), "beta2"),
        (OptimizerConfig("odd", epsilon=1e-6), "epsilon"),
        (OptimizerConfig("odd", learning_rate=0.1, weight_decay=0.1, warmup_steps=2), None),
    ],
)
def test_an_optimizer_or_an_option_that_is_not_there_is_refused(optimizer: OptimizerConfig, key: str | None) -> None:
    assert [found for found, _ in optimizer.problems()] == ([key] if key else [])


@pytest.mark.parametrize(
    ("optimizer", "stage", "key"),
    [
        (OptimizerConfig("muon"), 1, "optimizer.name"),
        (OptimizerConfig("odd"), 1, "optimizer.name"),
        (OptimizerConfig("means"), 3, None),
        (OptimizerConfig("muon", freeze=("*.weight=5",)), 0, "optimizer.freeze"),
    ],
)
def test_what_an_optimizer_cannot_do_exactly_is_refused(
    optimizer: OptimizerConfig, stage: int, key: str | None
) -> None:
    found = [found for found, _ in joint_problems(optimizer, TrainConfig(zero_stage=stage))]
    assert found == ([key] if key else [])


@pytest.mark.slow
def test_another_number_of_ranks_and_another_stage_take_over_the_very_state(
    tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    saved = run_ranks("own_optimizers", 2, tmp_path, "save")
    for ranks, mode in ((1, "load"), (2, "again")):
        for name, of in run_ranks("own_optimizers", ranks, tmp_path, mode)[0].items():
            assert of["loaded"] == saved[0][name]["saved"]
            # Where the number of ranks is another one, sums are made in another order.
            exact = saved[0][name]["losses"]
            expected = exact if ranks == 2 else pytest.approx(exact, 1e-4)
            # Muon orthogonalizes in bf16, which makes more of a last bit.
            assert of["losses"] == expected or (ranks, name) == (1, "muon")
    assert "Odd keeps scale, which is not one number for all parts" in saved[0]["refused"]["saved"]
