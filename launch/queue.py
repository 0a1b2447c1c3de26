"""What Slurm's queue says of a job, and what can be asked of it: squeue and scancel, no accounting database."""

import shutil
import subprocess
from dataclasses import dataclass

from data_shards.shown import cut
from launch import inherited

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
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it."""

    state: str
    """PENDING, RUNNING, COMPLETING and so on; UNKNOWN while Slurm does not answer."""
    reason: str
    """Why it waits, or what is known in place of an answer."""
    nodes: str
    """Where it runs, such as n[1-2]."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self.state in ENDED


def find(job_id: str, name: str) -> Job | None:
    """Return the job of this id and name; None where Slurm has forgotten it, or gave its id to another.

    A Slurm that does not answer has not forgotten it: the job may well run.
    """
    if shutil.which("squeue") is None:
        return None
    columns = "%T|%r|%N|%j"
    result = _run("squeue", "--noheader", "--states=all", "--array", f"--jobs={job_id}", f"--format={columns}")
    for line in result.stdout.splitlines():
        state, reason, nodes, found = line.strip().split("|", 3)
        if found == name:
            return Job(state, "" if reason == "None" else reason, nodes)
    if result.returncode and "Invalid job id" not in result.stderr:
        return Job(UNKNOWN, f"squeue: {cut(result.stderr.strip())}", "")
    return None


def max_array_tasks() -> int:
    """Return how many tasks an array of this Slurm may have; 0 where it does not say."""
    if shutil.which("scontrol") is None:
        return 0
    for line in _run("scontrol", "show", "config").stdout.splitlines():
        key, _, value = (word.strip() for word in line.partition("="))
        if key == "MaxArraySize" and value.isdigit():
            return int(value)
    return 0


def named(name: str) -> list[str]:
    """Return the ids of the jobs of this name that wait, run or are just leaving; ValueError where Slurm is away."""
    result = _run("squeue", "--noheader", f"--name={name}", "--format=%A")
    if result.returncode:
        raise ValueError(f"squeue: {cut(result.stderr.strip())}")
    return result.stdout.split()


def signal_ranks(job_id: str, number: str) -> None:
    """Signal the ranks of a job; one that has just ended needs none."""
    _run("scancel", f"--signal={number}", job_id)


def cancel(job_id: str) -> None:
    """End the job for good; it is signalled with TERM first."""
    result = _run("scancel", job_id)
    if result.returncode:
        raise ValueError(f"scancel {job_id}: {cut(result.stderr.strip())}")


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        # Without the user's own options of squeue, such as a partition that it shows alone: the job would seem gone.
        environment = inherited.passed()
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"no answer within {ANSWER_SECONDS:.0f} s")
