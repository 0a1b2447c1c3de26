"""How long work takes on a device, and how much memory."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# An H100's and an H200's dense bf16 products, by their data sheet.
PEAK_FLOPS = 990e12


@dataclass(frozen=True)
class Timing:
    """Holds the time and the memory that one piece of work takes."""

    milliseconds: float
    """The median of some turns."""
    peak_mib: float
    """The most memory that the device had given away; 0 on a CPU."""
    added_mib: float
    """How much of it was given away by the work itself."""


def synchronise(device: torch.device) -> None:
    """Wait for all that the device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], object], device: torch.device, *, warm: int = 2, turns: int = 5) -> Timing:
    """Return the timing of work that was done before: the first calls compile, choose kernels and take memory."""
    if device.type != "cuda":
        work()
        began = time.perf_counter()
        work()
        return Timing(1e3 * (time.perf_counter() - began), 0.0, 0.0)
    for _ in range(warm):
        work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = []
    for _ in range(turns):
        # By events of the device: the host's clock would add the launch of the first kernel and its own wait.
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        stop.record()
        stop.synchronize()
        found.append(start.elapsed_time(stop))
    peak = torch.cuda.max_memory_allocated()
    return Timing(statistics.median(found), peak / 2**20, (peak - before) / 2**20)
