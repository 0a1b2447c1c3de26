"""A rank's batches on their device: the next one early, and padding in place of one that this rank cannot have."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import whole_batch

from data_shards.format.annotations import NO_LABEL
from data_shards.loading.batch import Batch
from trainer.distributed.world import World
from trainer.feed import Feed


@dataclass(frozen=True)
class Counted(World):
    """A world of one rank that counts its exchanges."""

    exchanges: list[float] = field(default_factory=list)

    def maximum(self, tensor: Tensor) -> Tensor:
        self.exchanges.append(tensor.item())
        return tensor


class LeftError(Exception):
    """All ranks left, and why."""


def leave(problem: str) -> NoReturn:
    raise LeftError(problem)


def without(missing: int) -> Callable[[int], Batch]:
    def batches(index: int) -> Batch:
        if index == missing:
            raise ValueError("shard 7 is cut")
        targets = {"label": torch.ones(16, 5)}
        return replace(whole_batch(index), targets=targets, index=index)

    return batches


@pytest.fixture
def world() -> Counted:
    return Counted(0, 1, 0, torch.device("cpu"))


def test_a_batch_that_is_missing_is_padding_of_the_same_shapes_and_only_the_first_costs_an_exchange(
    world: Counted,
) -> None:
    feed = Feed(without(2), world, leave)
    whole = feed(1)
    assert (whole.problem, whole.batch.index) == ("", 1)
    for _ in range(2):
        padding = feed(2)
        assert padding.problem == "shard 7 is cut"
        assert padding.batch.index == 2
        assert (padding.batch.num_samples, len(padding.batch.keys)) == (0, len(whole.batch.keys))
        assert set(padding.batch.labels.tolist()) == {NO_LABEL}
        for found, like in zip(padding.batch.tensors(), whole.batch.tensors(), strict=True):
            assert (found.shape, found.dtype, found.device) == (like.shape, like.dtype, like.device)
        assert sum(bool(each.any()) for each in padding.batch.tensors()) == 1, "the labels alone are not 0"
    after = feed(3)
    assert (after.problem, after.batch.index, after.batch.num_samples) == ("", 3, whole.batch.num_samples)
    assert torch.equal(after.batch.labels, whole_batch(3).labels)
    assert world.exchanges == [0.0]


def test_without_the_first_batch_nobody_knows_the_shapes_and_all_leave(world: Counted) -> None:
    with pytest.raises(LeftError, match="shard 7 is cut"):
        Feed(without(2), world, leave)(2)
    assert world.exchanges == [1.0]


def test_a_problem_of_a_later_batch_is_told_to_whoever_leaves(world: Counted) -> None:
    with pytest.raises(LeftError, match="shard 7 is cut"):
        Feed(without(2), world, leave).leave("shard 7 is cut")


def test_a_problem_where_nobody_knows_how_to_leave_is_our_own_fault(world: Counted) -> None:
    with pytest.raises(AssertionError, match="nobody knows how to leave"):
        Feed(without(2), world).leave("shard 7 is cut")


def test_where_nobody_knows_how_to_leave_the_error_is_raised_and_nothing_exchanged(world: Counted) -> None:
    feed = Feed(without(2), world)
    feed(1)
    with pytest.raises(ValueError, match="shard 7 is cut"):
        feed(2)
    assert world.exchanges == []


def test_on_the_host_nothing_is_prepared(world: Counted) -> None:
    made: list[int] = []
    feed = Feed(lambda index: made.append(index) or whole_batch(index), world)  # type: ignore[func-returns-value]
    feed.prepare(0)
    assert made == []


class Stream:
    """A stand-in for a stream of a GPU, which notes who waits for whom."""

    def __init__(self, told: list[str], name: str) -> None:
        self.told, self.name = told, name

    def wait_stream(self, other: "Stream") -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def __enter__(self) -> None:
        self.told.append("[")

    def __exit__(self, *_: object) -> None:
        self.told.append("]")


def test_on_a_gpu_the_next_batch_is_copied_beside_the_step_and_met_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    made: list[int] = []
    computation = Stream(told, "the step")
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream(told, "the copy"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: computation)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(Tensor, "record_stream", lambda _, stream: told.append(f"held for {stream.name}"))
    monkeypatch.setattr(Batch, "pinned", lambda batch: told.append("pinned") or batch)
    monkeypatch.setattr(Batch, "to", lambda batch, device: told.append(f"to {device}") or batch)

    def batches(index: int) -> Batch:
        made.append(index)
        return replace(whole_batch(index), index=index)

    feed = Feed(batches, World(0, 1, 0, torch.device("cuda")))
    copied, met = ["[", "pinned", "to cuda", "]"], ["the step waits for the copy", *["held for the step"] * 4]
    assert feed(0).batch.index == 0
    assert told == ["to meta", *copied, *met]
    told.clear()
    feed.prepare(1)
    assert (made, told) == ([0, 1], copied)
    assert feed(1).batch.index == 1
    assert (made, told) == ([0, 1], [*copied, *met])
    # After a rollback another one follows, and what was prepared is forgotten.
    feed.prepare(2)
    assert [feed(index).batch.index for index in (5, 2)] == [5, 2]
    assert made == [0, 1, 2, 5, 2]
