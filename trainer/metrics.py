"""Meter: the steps between two log lines become one record, with one exchange and one look at the device."""

import resource
import sys
from dataclasses import dataclass

import torch

from trainer.engine import StepReport
from trainer.world import World

Record = dict[str, float | int | str]


@dataclass(frozen=True)
class StepTime:
    """Where the time of one step went, on this rank."""

    seconds: float
    """Of the whole step, batch and update."""
    data_seconds: float
    """Of waiting for the batch."""


class Meter:
    """Sums over the steps since the last record."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._times: list[StepTime] = []
        self._skipped = 0

    def add(self, report: StepReport, time: StepTime) -> None:
        """Take in one step; reads nothing from the device."""
        self._times.append(time)
        self._skipped += report.is_skipped

    def record(self, step: int, report: StepReport) -> Record:
        """Return the record of the steps since the last one; loss and norm are those of the last step. Collective."""
        count = len(self._times)
        total, waited = sum(t.seconds for t in self._times), sum(t.data_seconds for t in self._times)
        # What a rank computes is what others do not wait for: its step without the data and without the exchange
        # cannot be told apart on the host, so the rank with the longest wait for data is named.
        waits = self._world.gather(waited)
        slowest = max(range(len(waits)), key=lambda rank: waits[rank])
        seconds = max(total, 1e-9)
        record: Record = {
            "step": step,
            "loss": float(report.loss),
            **{f"loss/{task}": float(loss) for task, loss in report.task_losses.items()},
            "learning_rate": report.learning_rate,
            "grad_norm": report.grad_norm,
            "skipped_steps": self._skipped,
            "samples_per_second": count * report.num_samples / seconds,
            "step_seconds": total / count,
            "data_wait_seconds": waits[slowest] / count,
            "data_wait_share": waits[slowest] / seconds,
            "slowest_rank": slowest,
            "memory_mib": memory_mib(self._world.device),
        }
        self._times, self._skipped = [], 0
        return record


def memory_mib(device: torch.device) -> float:
    """Return the peak memory: of the device, or of the process where it computes on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
