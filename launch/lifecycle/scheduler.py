"""Scheduler: the protocol for starting jobs. Another scheduler is one file in launch/schedulers.

submit --> [ scheduler ] --> the ranks, in the run's frozen code, under the rules of restart_policy.py
status, stop, cancel, logs <-- find, cancel
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

# Only their names: the batch script's python may be a host's without OmegaConf, which reads profiles.
if TYPE_CHECKING:
    from launch.lifecycle.cluster import ClusterConfig
    from launch.lifecycle.run_folder import RunFolder

UNKNOWN = "UNKNOWN"
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)


@dataclass(frozen=True)
class Job:
    """A job as its scheduler shows it."""

    state: str
    """PENDING, RUNNING, COMPLETING and so on, in Slurm's words; UNKNOWN while the scheduler does not answer."""
    reason: str
    """Why it waits, or what is known in place of an answer."""
    nodes: str
    """The nodes of the job, such as n[1-2]."""
    excluded: tuple[str, ...] = ()
    """The nodes on which it is not to run."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self.state in ENDED


class Scheduler(Protocol):
    """Starts jobs, finds them and ends them."""

    def submit(
        self, folders: Sequence["RunFolder"], profile: "ClusterConfig", *, job_name: str, avoided: Sequence[str]
    ) -> Iterator[tuple["RunFolder", str]]:
        """Start the jobs of runs whose folders are complete; yield each run and its job's id once it has one.

        ValueError, with the scheduler's own words, where it refuses. A job may not run on nodes that are `avoided`.
        """
        ...

    def preview(self, folders: Sequence["RunFolder"], profile: "ClusterConfig", *, job_name: str) -> list[str]:
        """Return what `submit` would hand over, one shell script a job; ValueError where it cannot be written."""
        ...

    def find(self, job_id: str, job_name: str) -> Job | None:
        """Return the job of this id and name; None where it is forgotten, or where its id is another's by now."""
        ...

    def cancel(self, job_id: str) -> None:
        """End a job for good, without a save; ValueError where that is refused."""
        ...

    def usable_nodes(self, profile: "ClusterConfig", among: Collection[str]) -> list[str]:
        """Return the nodes on which a job of this profile could run now.

        Of a profile that only the scheduler understands, those `among` which are known to fulfil it.
        """
        ...
