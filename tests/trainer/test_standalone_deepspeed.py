"""Checkpoints around an engine of one's own: bit-equal at every ZeRO stage, loadable at others and by other ranks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from own_engine import engine, train
from tiny import Network

from trainer.checkpoint.layout import read_weights
from trainer.checkpoint.names import newest
from trainer.distributed.world import World
from trainer.standalone.checkpoint_store import CheckpointStore

WAYS = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16")]


@pytest.mark.parametrize(("stage", "precision"), WAYS)
def test_an_engine_resumes_to_the_last_bit(tmp_path: Path, world: World, stage: int, precision: str) -> None:
    whole = engine(world, stage, precision)
    expected = train(whole, world, 0, 6)
    first = engine(world, stage, precision)
    begun = train(first, world, 0, 3)
    with CheckpointStore(tmp_path / "a", first, asynchronous=False) as store:
        assert store.load() is None
        store.save(3)
    second = engine(world, stage, precision, seed=1)
    train(second, world, 0, 1)
    with CheckpointStore(tmp_path / "a", second) as store:
        restored = store.load()
    assert restored is not None
    assert restored.step == 3
    assert second.global_steps == first.global_steps == 3
    assert begun + train(second, world, 3, 6) == expected
    for name, made in (("whole", whole), ("second", second)):
        with CheckpointStore(tmp_path / name, made, asynchronous=False) as store:
            store.save(6)
        made.destroy()
    first.destroy()
    weights = [read_weights(newest(tmp_path / name) or tmp_path) for name in ("whole", "second")]
    assert weights[0].keys() == weights[1].keys() == Network(0).state_dict().keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_plain_module_takes_the_weights_of_an_engine(tmp_path: Path, world: World) -> None:
    made = engine(world, 1)
    train(made, world, 0, 2)
    with CheckpointStore(tmp_path, made) as store:
        store.save(2)
    network = Network(5)
    with CheckpointStore(tmp_path, network) as store:
        assert store.load() is not None
    for name, tensor in made.module.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    made.destroy()


@pytest.mark.parametrize(
    ("stage", "changes", "sentence"),
    [
        (1, {"zero": {"round_robin_gradients": True}}, "round_robin_gradients deals parameters out"),
        (0, {"bf16": {"enabled": True}}, "at ZeRO 0 it wraps its optimizer in FP16"),
    ],
)
def test_an_engine_that_is_not_understood_is_refused(
    tmp_path: Path, world: World, stage: int, changes: dict[str, Any], sentence: str
) -> None:
    made = engine(world, stage, **changes)
    with pytest.raises(ValueError, match=f"engine: .*{sentence}"):
        CheckpointStore(tmp_path, made)
    made.destroy()


def test_an_engine_comes_with_its_own_optimizer(tmp_path: Path, world: World) -> None:
    made = engine(world, 1)
    with pytest.raises(ValueError, match="an engine of DeepSpeed's has its own; leave it out"):
        CheckpointStore(tmp_path, made, made.optimizer)
    made.destroy()


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [((2, 1), (1, 1)), ((2, 3), (1, 2)), ((1, 1), (2, 3)), ((2, 2), (2, 0))])
def test_it_loads_at_another_number_of_ranks_and_another_stage(
    tmp_path: Path, run_ranks: Callable[..., list[Any]], before: tuple[int, int], after: tuple[int, int]
) -> None:
    (ranks, stage), (other_ranks, other_stage) = before, after
    expected = run_ranks("own_engine", ranks, tmp_path / "whole", stage, "fp32", 6)[0]["losses"]
    begun = run_ranks("own_engine", ranks, tmp_path / "parts", stage, "fp32", 3)[0]
    rest = run_ranks("own_engine", other_ranks, tmp_path / "parts", other_stage, "fp32", 6)[0]
    assert (rest["first"], rest["steps"]) == (3, 6)
    # Another number of ranks sums in another order: fp32 rounding, over three steps of a net of 400 channels.
    exact = begun["losses"] + rest["losses"]
    assert exact == pytest.approx(expected, rel=0 if before == after else 1e-5)
