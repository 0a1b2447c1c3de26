"""A step asks the device nothing that the host would have to wait for; the ranks exchange no more than they must."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
import stem
from tiny import LAMB, OPTIMIZER, engine, whole_batch

from model.perceiver import Perceiver
from trainer.config import OptimizerConfig
from trainer.distributed.world import World


class Looks(TorchDispatchMode):
    """Counts the values that are taken out of tensors: on a GPU the host waits for each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts what reads a tensor as a whole, which asks for no operation."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        self.count += func in (Tensor.tolist, Tensor.numpy)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often DeepSpeed waits for all that is queued on the device."""
    from deepspeed.accelerator import get_accelerator

    # An engine of an earlier test waits for the device when it is collected, which could be during the count.
    gc.collect()
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(get_accelerator(), "synchronize", lambda *_: calls.append(1), raising=False)
        yield calls


@pytest.mark.parametrize("config", [OPTIMIZER, LAMB], ids=["adamw", "lamb"])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_looks_at_nothing_before_its_report_is_read(
    world: World, config: OptimizerConfig, stage: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = engine(world, optimizer=config, zero_stage=stage, precision=precision, micro_batch=8, log_every_steps=2)
    for index in range(3):
        trained.step(whole_batch(index))
    with waits(monkeypatch) as calls, Looks() as looks, Reads() as reads:
        # One with a log line, which has more to tell, and one without.
        started = [trained.start(whole_batch(index), (False, True)) for index in (3, 4)]
    assert (looks.count, reads.count, len(calls)) == (0, 0, 0)
    reports = [one.report() for one in started]
    assert [report.flags for report in reports] == [(False, True)] * 2
    assert [set(report.group_norms) for report in reports] == [{"decayed", "exempt"}, set()]
    trained.close()


@pytest.mark.parametrize("config", [OPTIMIZER, LAMB], ids=["adamw", "lamb"])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_step_that_is_not_finite_changes_nothing_although_nobody_looked(
    world: World, config: OptimizerConfig, stage: int
) -> None:
    trained = engine(world, optimizer=config, zero_stage=stage)
    trained.step(whole_batch(0))
    before = {(kind, name): tensor.clone() for kind, of in trained.snapshot().items() for name, tensor in of.items()}
    applied = trained.progress().applied_steps
    broken = whole_batch(1)
    broken.arrays["points"][0] = float("inf")
    broken.labels[0] = 1
    started = trained.start(broken)
    after = {(kind, name): tensor for kind, of in trained.snapshot().items() for name, tensor in of.items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert trained.progress().applied_steps == applied
    assert started.report().is_skipped
    assert not trained.step(whole_batch(2)).is_skipped
    trained.close()


def on_meta() -> tuple[Perceiver, Any]:
    """A network with a batch norm and a batch of which a sample has no image, on a device that has no values."""
    batch = stem.images(0)
    batch.lengths["image"][0] = 0
    return Perceiver(stem.CONFIG, seed=0).to("meta"), batch.to("meta")


def test_forward_and_backward_of_a_perceiver_look_at_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a device has no autocast to be switched off.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    network, batch = on_meta()
    counts = stem.GOAL.counts(batch, by_input=True)
    network.observe(batch.arrays, batch.host_lengths, Tensor.clone)
    sums = stem.GOAL.sums(network, batch, by_input=True)
    sum(part / counts[task] for task, part in sums.items() if part.requires_grad).backward()
    network.settle(is_kept=counts["label"].isfinite())
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_what_the_ranks_want_travels_with_the_counts_of_samples(
    run_ranks: Callable[..., list], tmp_path: Path, stage: int
) -> None:
    made = run_ranks("exchanges", 2, stage, tmp_path)
    assert made[0] == made[1]
    small = [elements for operation, elements in made[0] if elements < 10]
    # The counts of one task with stop, save and a batch that is missing; the norm, which all ranks have at stage 0,
    # of two groups; the losses.
    assert small == [4, 1] if stage == 0 else [4, 2, 1]
    assert not [operation for operation, elements in made[0] if elements == 0]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_travel_as_they_are_told_to_and_the_run_learns_the_same(
    run_ranks: Callable[..., list], precision: str
) -> None:
    told = run_ranks("gradients", 2, precision)[0]
    assert len(told) == 8
    for name, (losses, types) in told.items():
        stage, way = name.split("/")
        assert types == ["torch.bfloat16" if way == "bf16" else "torch.float32"], name
        # Rounding a gradient to 8 bits moves the weights of the next steps; the order of a sum moves the last bit.
        assert losses == pytest.approx(told[f"{stage}/default"][0], rel=1e-2 if way == "bf16" else 1e-6), name
