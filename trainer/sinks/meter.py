"""Meter: the steps between two log lines become one record, with one exchange."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.distributed.world import World
from trainer.engine.step_report import StepReport

Record = dict[str, float | int | str]


@dataclass(frozen=True)
class StepTime:
    """How the time of one step was spent on this rank."""

    seconds: float
    """The time of the whole step, with batch and update."""
    data_seconds: float
    """The time waiting for the batch."""


@dataclass(frozen=True)
class Work:
    """What one sample costs, as the network's formulas have it, and what a device can do."""

    flops_per_sample: float = 0.0
    """Forward and backward, without recomputation; 0 if unknown."""
    tokens_per_sample: float = 0.0
    """Elements of the input that the network reads; 0 if unknown."""
    peak_flops: float = 0.0
    """Measured floating-point operations a second of one device; 0 if unknown."""


class Meter:
    """Sums over the steps since the last record."""

    def __init__(
        self, world: World, work: Work | None = None, *, count_bad_samples: Callable[[], int] = lambda: 0
    ) -> None:
        self._world = world
        self._work = work or Work()
        self._count_bad_samples = count_bad_samples
        self._times: list[StepTime] = []
        self._forward_seconds = 0.0
        self._skipped = 0

    def add(self, report: StepReport, time: StepTime) -> None:
        """Take in one step."""
        self._times.append(time)
        self._forward_seconds += report.forward_seconds
        self._skipped += report.is_skipped or report.is_rescaled

    def record(self, step: int, report: StepReport) -> Record:
        """Return the record of the steps since the last one; loss and norms are those of the last step. Collective."""
        count = len(self._times)
        total = max(sum(time.seconds for time in self._times), 1e-9)
        waits, forwards = zip(
            *self._world.gather((sum(time.data_seconds for time in self._times), self._forward_seconds)), strict=True
        )
        record: Record = {
            "step": step,
            "loss": report.loss,
            **{f"loss/{task}": loss for task, loss in report.task_losses.items()},
            "learning_rate": report.learning_rate,
            "grad_norm": report.grad_norm,
            **{f"grad_norm/{group}": norm for group, norm in report.group_norms.items()},
            "skipped_steps": self._skipped,
            "bad_samples": self._count_bad_samples(),
            "step_seconds": total / count,
            "data_wait_seconds": max(waits) / count,
            "data_wait_share": max(waits) / total,
            # Only the forward pass tells ranks apart: afterwards all wait for the slowest.
            "slowest_rank": max(range(len(forwards)), key=lambda rank: forwards[rank]),
            "slowest_rank_excess": max(forwards) / max(statistics.median(forwards), 1e-9) - 1,
            "memory_mib": memory_mib(self._world.device),
            **self._rates(count * report.num_samples / total),
        }
        self._times, self._forward_seconds, self._skipped = [], 0.0, 0
        return record

    def _rates(self, samples_per_second: float) -> Record:
        rates: Record = {"samples_per_second": samples_per_second}
        if self._work.tokens_per_sample:
            rates["tokens_per_second"] = samples_per_second * self._work.tokens_per_sample
        if self._work.flops_per_sample and self._work.peak_flops:
            peak = self._work.peak_flops * self._world.world_size
            rates["flop_utilisation"] = samples_per_second * self._work.flops_per_sample / peak
        return rates


def memory_mib(device: torch.device) -> float:
    """Return the peak memory: of the device, or of the process where it computes on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # macOS counts bytes here, Linux KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measured_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations a second of the best of a few large matrix products on this device."""
    # On a CPU as many as keep its threads busy: each start waits for this.
    rows = 8192 if device.type == "cuda" else 512 if torch.get_num_threads() <= 4 else 1024
    left = torch.ones(rows, rows, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        product = left @ left
        product[0, 0].item()  # waits for the device
        # The best, since other work on the machine only ever makes it slower.
        best = min(best, time.perf_counter() - started)
    return 2 * rows**3 / best
