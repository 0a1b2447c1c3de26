"""Feed: the batches of a training on their device. On a GPU the next batch is copied while a step runs.

    rank 0   batch 7                         step 7: counts, flags --+--> leave(the sentence)
    rank 1   shard 3 is damaged: padding     step 7: counts, flags --+--> leave(the sentence)

A rank that raised alone would leave the others in the exchanges of the step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch

from data_shards.format.annotations import NO_LABEL
from data_shards.loading.batch import Batch
from trainer.distributed.world import World

Batches = Callable[[int], Batch]
Leave = Callable[[str], NoReturn]


@dataclass(frozen=True)
class Fed:
    """The input of a step."""

    batch: Batch
    problem: str = ""
    """Why this rank has no batch, in words; `batch` is padding then, so that the ranks stay together."""


class Feed:
    """A rank's part of any global batch.

    A batch that a rank cannot have is padding with a sentence about it. All ranks meet it in their next exchange and
    then call `leave`, together; without `leave` the loader's error is raised on its rank alone.
    """

    def __init__(self, batches: Batches, world: World, leave: Leave | None = None) -> None:
        self._batches, self._world, self._leave = batches, world, leave
        self._like: Batch | None = None
        self._stream: torch.cuda.Stream | None = None
        if world.device.type == "cuda":
            self._stream = torch.cuda.Stream(world.device)  # type: ignore[no-untyped-call]
        self._coming: tuple[int, Fed] | None = None

    def __call__(self, index: int) -> Fed:
        """Return global batch `index`, ready for whatever is queued next. The first call: Collective."""
        # After a rollback another batch follows than the one that was prepared.
        coming, self._coming = self._coming, None
        fed = coming[1] if coming is not None and coming[0] == index else self._fed(index)
        if self._stream is not None:
            _join(self._stream, fed.batch)
        return fed

    def prepare(self, index: int) -> None:
        """On a GPU, copy the next batch during the running step."""
        if self._stream is not None:
            self._coming = index, self._fed(index)

    def leave(self, problem: str) -> NoReturn:
        """End on all ranks, because some rank has no batch. Collective."""
        assert self._leave is not None, "a problem was reported although nobody knows how to leave"
        self._leave(problem)

    def _fed(self, index: int) -> Fed:
        problem = ""
        try:
            batch = self._batches(index)
        # What a loader says of its data. Any other error is ours: it ends this rank with a traceback.
        except ValueError as error:
            if self._leave is None:
                raise
            problem = str(error)
        self._meet_first(problem)
        if problem:
            assert self._like is not None
            batch = _padding(self._like, index)
        elif self._like is None:
            # Shapes and types are all that padding needs; the batch's memory is free for the next one.
            self._like = batch.to("meta")
        if self._stream is None:
            return Fed(batch, problem)
        with torch.cuda.stream(self._stream):
            # From memory that is not page-locked, the copy would hold up the host, and with it the next step.
            return Fed(batch.pinned().to(self._world.device), problem)

    def _meet_first(self, problem: str) -> None:
        """Leave together where any rank lacks its first batch: without it nobody knows the shapes of padding."""
        if (
            self._leave is not None
            and self._like is None
            and self._world.maximum(torch.tensor(float(bool(problem)))) > 0
        ):
            self._leave(problem)


def _padding(like: Batch, index: int) -> Batch:
    """Return a batch of the same shapes in which no sample counts."""
    arrays, targets = (
        {name: torch.zeros_like(tensor, device="cpu") for name, tensor in tensors.items()}
        for tensors in (like.arrays, like.targets)
    )
    lengths = {name: torch.zeros_like(length, device="cpu") for name, length in like.lengths.items()}
    labels = torch.full_like(like.labels, NO_LABEL, device="cpu")
    weights = torch.zeros_like(like.weights, device="cpu")
    return Batch(arrays, lengths, labels, weights, ("",) * len(like.keys), targets, index)


def _join(stream: torch.cuda.Stream, batch: Batch) -> None:
    """Let the current stream wait for the copies of another, and that one not reuse their memory before it is done."""
    current = torch.cuda.current_stream()
    current.wait_stream(stream)
    for tensor in batch.tensors():
        if tensor.is_cuda:
            tensor.record_stream(current)
