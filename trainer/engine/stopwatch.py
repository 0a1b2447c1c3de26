"""Stopwatch: the total time that a device spends inside a block; on a GPU by events that nobody waits for."""

import sys
import time

import torch


class Stopwatch:
    """A context manager for repeated use; `read` returns the sum and resets it."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._started = 0.0
        self._seconds = 0.0
        self._events: list[torch.cuda.Event] = []

    def __enter__(self) -> None:
        # The host has long moved on when the device begins: its own clock would measure how fast it queues.
        if self._is_cuda:
            self._record()
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds += time.perf_counter() - self._started
        if self._is_cuda:
            self._record()

    def read(self) -> float:
        """Return the seconds since the last reading; on a GPU the events must have passed by then."""
        seconds, self._seconds = self._seconds, 0.0
        if self._is_cuda:
            pairs = zip(self._events[::2], self._events[1::2], strict=True)
            seconds = sum(start.elapsed_time(stop) for start, stop in pairs) / 1000
            self._events = []
        return seconds

    def _record(self) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._events.append(event)


def compile_seconds() -> float:
    """Return the time that torch.compile has taken in this process so far."""
    # Who compiled nothing need not import the compiler.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return float(dynamo.calculate_time_spent().get("total_wall_time", 0.0)) if dynamo else 0.0
