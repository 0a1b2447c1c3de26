"""Ranks that are threads of this process: their exchanges are real, over gloo or by hand, and cost no process."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from trainer.distributed.world import World
from trainer.health.stop_request import StopRequest

T = TypeVar("T")
SECONDS = 120.0
"""So long a rank waits for the others; a busy machine may keep one from its core for long. One that fails says so."""
CPU = torch.device("cpu")


class Meeting:
    """Where the ranks exchange what they have; a rank that does not come breaks it for all."""

    def __init__(self, world_size: int) -> None:
        self.items: list[Any] = [None] * world_size
        self.barrier = threading.Barrier(world_size)

    def exchange(self, rank: int, item: T) -> list[T]:
        self.items[rank] = item
        self.barrier.wait(SECONDS)
        items = list(self.items)
        self.barrier.wait(SECONDS)
        return items


class StopsAt(StopRequest):
    """A request that comes while this rank prepares a step; None for never."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.step, self.asked = step, 0

    def is_raised(self) -> bool:
        self.asked += 1
        return self.step is not None and self.asked >= self.step


@dataclass(frozen=True)
class ThreadWorld(World):
    """One rank of several in this process."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def sum(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.gather(tensor.detach().clone())).sum(dim=0)

    def maximum(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.gather(tensor.detach().clone())).amax(dim=0)

    def gather(self, item: T) -> list[T]:
        # A copy each, as ranks that are processes have.
        return copy.deepcopy(self.meeting.exchange(self.rank, item))

    def broadcast(self, item: T) -> T:
        return self.gather(item)[0]

    def collect(self, item: T) -> list[T]:
        items = self.gather(item)
        return items if self.is_first else []

    def spread(self, tensor: Tensor, source: int) -> None:
        tensor.copy_(self.gather(tensor)[source])

    def exchange(self, tensor: Tensor, sent: list[int], expected: list[int]) -> Tensor:
        return torch.cat([parts[self.rank] for parts in self.gather(tensor.split(sent))])

    def twin(self, timeout_seconds: float) -> "ThreadWorld":
        return replace(self, meeting=self.meeting.exchange(self.rank, Meeting(self.world_size))[0])


def on_gloo(world_size: int, work: Callable[[World], T]) -> list[T]:
    """Return what the work returns on each rank: threads of this process, whose exchanges go over gloo."""
    store = HashStore()

    def rank(number: int) -> T:
        group = dist.ProcessGroup(store, number, world_size)
        group._set_default_backend(dist.ProcessGroup.BackendType.GLOO)
        gloo = dist.ProcessGroupGloo(dist.PrefixStore("gloo", store), number, world_size, timedelta(seconds=60))
        group._register_backend(CPU, dist.ProcessGroup.BackendType.GLOO, gloo)
        return work(World(number, world_size, number, CPU, group=group))

    with ThreadPoolExecutor(world_size) as threads:
        return list(threads.map(rank, range(world_size)))


def on_ranks(world_size: int, work: Callable[[ThreadWorld], T]) -> list[T]:
    """Return what the work returns on each rank; an error of one ends all."""
    meeting = Meeting(world_size)

    def rank(number: int) -> T:
        try:
            return work(ThreadWorld(number, world_size, number, torch.device("cpu"), meeting=meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as threads:
        ranks = [threads.submit(rank, number) for number in range(world_size)]
    errors = [error for error in (one.exception() for one in ranks) if error is not None]
    # Who waited for a rank that failed knows only that it did not come.
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    for error in errors:
        raise error
    return [one.result() for one in ranks]
