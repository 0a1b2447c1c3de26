"""Fencing: keeps a superseded attempt from writing into its run.

When a node is lost Slurm starts the job elsewhere, but the old ranks live on until their node returns. Attempts are
numbered folders, so an attempt is over as soon as its successor's folder exists: one look that needs no lock and no
clock. A rank that cannot see the folder cannot write into the run either.

    attempt 3   trains | its node is lost; ranks live on, without peers | see 0004: commit nothing, exit with 1
    attempt 4                  | Slurm starts the job elsewhere: mkdir 0004 | trains from the newest checkpoint
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.lifecycle.attempts import HEARTBEAT_SECONDS, attempt_folder
from launch.lifecycle.heartbeat import Heartbeat
from launch.lifecycle.run_folder import RunFolder

NUMBER = "PERCEIVER_ATTEMPT"
SUPERVISOR = "PERCEIVER_SUPERVISOR"
"""Process id of the local supervisor, which holds the run's lock for its ranks."""


class SupersededError(RuntimeError):
    """A later attempt owns the run."""


@dataclass(frozen=True)
class Fence:
    """Says whether this process may still write into the run."""

    successor: Path | None
    """Folder of the next attempt; None for a process that has none itself, such as one that only evaluates."""

    @staticmethod
    def of(folder: RunFolder, environment: Mapping[str, str] = os.environ) -> "Fence":
        """Return the fence of the attempt that the environment names."""
        number = environment.get(NUMBER)
        return Fence.before(folder, int(number)) if number else Fence(None)

    @staticmethod
    def before(folder: RunFolder, number: int) -> "Fence":
        """Return the fence of the attempt of this number."""
        return Fence(attempt_folder(folder, number + 1))

    @property
    def attempt(self) -> Path | None:
        """The folder of the attempt of this process."""
        return self.successor and self.successor.with_name(f"{int(self.successor.name) - 1:04d}")

    @property
    def is_supervised(self) -> bool:
        """Whether somebody else began the attempt of this process."""
        return self.successor is not None

    @property
    def is_open(self) -> bool:
        """Whether no later attempt has begun."""
        return self.successor is None or not self.successor.exists()

    def check(self) -> None:
        """Raise SupersededError if a later attempt has begun; to be called before anything is written."""
        if not self.is_open:
            raise SupersededError(
                f"attempt {self.successor} has begun; this process belongs to an earlier one and stops"
            )

    def watch(self, record: Path) -> Heartbeat:
        """End this process soon after a later attempt has begun, even while it waits for a rank that is gone.

        Until then its heartbeat is given, so that the rank that fell silent first can be told from those that waited
        for it. The watch ends when the event that is returned is set.
        """
        return Heartbeat(record, HEARTBEAT_SECONDS, lambda: self.is_open, self._end)

    def _end(self) -> None:
        sys.stderr.write(f"attempt {self.successor} has begun; this process belongs to an earlier one and ends\n")
        # No clean-up: it would wait for the other ranks, or write.
        os._exit(1)
