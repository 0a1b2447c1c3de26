"""Slurm's queue: the state of a job by squeue, and its end by scancel. No accounting database is needed."""

import shutil
import subprocess
from collections.abc import Collection

from data_shards.files.quoting import cut
from launch.lifecycle.scheduler import UNKNOWN, Job
from launch.slurm import inherited

_TAKES_JOBS = ("allocated", "completing", "idle", "mixed", "planned", "reserved")
ANSWER_SECONDS = 60.0


def find(job_id: str, name: str) -> Job | None:
    """Return the job of this id and name; None where Slurm has forgotten it, or gave its id to another.

    A Slurm that does not answer has not forgotten it: the job may well run.
    """
    if shutil.which("squeue") is None:
        return None
    columns = "%T|%r|%N|%j|%x"
    # All states: without the option a job that has just ended would seem forgotten.
    result = _run("squeue", "--noheader", "--states=all", "--array", f"--jobs={job_id}", f"--format={columns}")
    # The name decides, since Slurm gives the ids of old jobs to new ones.
    for line in result.stdout.splitlines():
        state, reason, nodes, found, *excluded = line.strip().split("|", 4)
        if found == name:
            avoided = excluded[0] if excluded and excluded[0] != "(null)" else ""
            return Job(state, "" if reason == "None" else reason, nodes, tuple(expanded(avoided)))
    if result.returncode and "Invalid job id" not in result.stderr:
        return Job(UNKNOWN, f"squeue: {cut(result.stderr.strip())}", "")
    return None


def usable_nodes(partition: str = "", constraint: str = "", among: Collection[str] = ()) -> list[str]:
    """Return the nodes that take jobs now, of a partition, else of Slurm's default, and with the features asked for.

    Of a constraint that only Slurm understands, such as one with counts, those `among` which are known to fulfil it.
    """
    if shutil.which("sinfo") is None:
        return []
    asked = [f"--partition={partition}"] if partition else []
    result = _run("sinfo", "--noheader", "--Node", *asked, "--format=%N|%T|%P|%f")
    rows = [line.strip().split("|", 3) for line in result.stdout.splitlines()]
    # Without a partition sinfo lists a node once for each that it is in; a job goes to the one with the star.
    has_default = not partition and any(row[2].endswith("*") for row in rows)
    nodes = set()
    for name, state, of, features in rows:
        if has_default and not of.endswith("*"):
            continue
        fulfils = _fulfils(features.split(","), constraint)
        # A star is behind the state of a node that does not answer, a tilde behind that of one that is switched off.
        if state.rstrip("~#%$@^-") in _TAKES_JOBS and (name in among if fulfils is None else fulfils):
            nodes.add(name)
    return sorted(nodes)


def expanded(nodes: str) -> list[str]:
    """Return the nodes of a list such as n[1-2], one by one; as they stand where there is no Slurm to ask."""
    if "[" not in nodes or shutil.which("scontrol") is None:
        return [node for node in nodes.split(",") if node]
    return _run("scontrol", "show", "hostnames", nodes).stdout.split()


def max_array_tasks() -> int | None:
    """Return how many tasks an array of this Slurm may have, 1 where it has no arrays; None where it does not say."""
    if shutil.which("scontrol") is None:
        return None
    for line in _run("scontrol", "show", "config").stdout.splitlines():
        key, _, value = (word.strip() for word in line.partition("="))
        if key == "MaxArraySize" and value.isdigit():
            return max(int(value), 1)
    return None


def named(name: str) -> list[str]:
    """Return the ids of the jobs of this name that wait, run or are just leaving; ValueError where Slurm is away."""
    result = _run("squeue", "--noheader", f"--name={name}", "--format=%A")
    if result.returncode:
        raise ValueError(f"squeue: {cut(result.stderr.strip())}")
    return result.stdout.split()


def signal_ranks(job_id: str, number: str) -> None:
    """Signal the ranks of a job; one that has just ended needs none."""
    # Without --batch or --full it reaches the ranks alone, like the signal before a time limit.
    _run("scancel", f"--signal={number}", job_id)


def cancel(job_id: str) -> None:
    """End the job for good; it is signalled with TERM first."""
    result = _run("scancel", job_id)
    if result.returncode:
        raise ValueError(f"scancel {job_id}: {cut(result.stderr.strip())}")


def _fulfils(features: Collection[str], constraint: str) -> bool | None:
    """Return whether features fulfil a constraint of & and |; None for one that says more."""
    if set(constraint) & set("[]()*"):
        return None
    ways = [way.split("&") for way in constraint.split("|")]
    return not constraint or any(all(part in features for part in way) for way in ways)


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        # Without the user's own options of squeue, such as a partition that it shows alone: the job would seem gone.
        environment = inherited.passed()
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"no answer within {ANSWER_SECONDS:.0f} s")
