"""The submission of a run: its record in the run's folder, and the job that it became."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import MappingProxyType
from uuid import uuid4

from data_shards.files import atomic, history
from data_shards.files.quoting import shown
from launch.lifecycle import attempts, cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.holder import refuse_if_trained
from launch.lifecycle.restart_policy import bad_nodes, dispensable
from launch.lifecycle.run_folder import RunFolder
from launch.lifecycle.scheduler import Job, Scheduler
from launch.schedulers.local import Local
from launch.schedulers.slurm import Slurm


@dataclass(frozen=True)
class Submission:
    """A job that was asked for."""

    job_id: str
    """The id of the job, such as 12, or 12_3 for a task of an array."""
    job_name: str
    """Unique, so that a job id that Slurm uses again is not taken for this one."""
    submitted_at: float
    """When it was submitted, in Unix seconds."""
    nodes: int
    """The number of nodes that it asked for."""
    processes_per_node: int
    """The number of ranks on each of them."""
    scheduler: str = "slurm"
    """The scheduler of the job."""


SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType({"slurm": Slurm(), "local": Local()})
"""Schedulers by their name in a cluster profile."""


def send(folders: Sequence[RunFolder], profile: ClusterConfig) -> list[Submission]:
    """Submit runs that exist, several as job arrays; ValueError if one is in the queue already or is trained."""
    for folder in folders:
        # Each before any is sent: a sweep of which one run is taken starts none of them.
        refuse_if_taken(folder)
    scheduler, name = SCHEDULERS[profile.scheduler], job_name(folders[0])
    # A job array has one list: a node that is bad for one of its runs is avoided by all.
    avoided = sorted({node for folder in folders for node in _avoided(folder, profile)})
    submissions: list[Submission] = []
    for folder in folders:
        # Before the job exists: a local supervisor reads it as soon as it starts.
        atomic.write(folder.cluster_path, cluster.dump(profile))
    with _without_stops(folders) as left:
        try:
            for folder, job_id in scheduler.submit(folders, profile, job_name=name, avoided=avoided):
                left.remove(folder)
                sent = Submission(
                    job_id, name, time.time(), profile.nodes, profile.processes_per_node, profile.scheduler
                )
                # After each job and not after all: what interrupts a sweep must not leave jobs that no run knows of.
                atomic.write(folder.submission_path, json.dumps(asdict(sent)) + "\n")
                submissions.append(sent)
        except ValueError as error:
            if not submissions:
                raise
            done = (
                f"{len(submissions)} of {len(folders)} runs were submitted, up to {folders[len(submissions) - 1].path}"
            )
            raise ValueError(f"{done}; then {error}; `perceiver resume RUN` submits each that is left") from error
    return submissions


def read(folder: RunFolder) -> Submission | None:
    """Return the newest submission of a run; None for one that was never submitted, or whose record is damaged."""
    sent = history.entry(Submission, folder.submission_path)
    if sent is not None and sent.scheduler not in SCHEDULERS:
        history.tell(f"{folder.submission_path}: names the scheduler {shown(sent.scheduler)}, which there is none of")
        return None
    return sent


def job(folder: RunFolder) -> Job | None:
    """Return the run's job as long as its scheduler remembers it."""
    sent = read(folder)
    return SCHEDULERS[sent.scheduler].find(sent.job_id, sent.job_name) if sent else None


def cancel(sent: Submission) -> None:
    """End the job of a submission for good, without a save."""
    SCHEDULERS[sent.scheduler].cancel(sent.job_id)


def refuse_if_taken(folder: RunFolder) -> None:
    """Raise ValueError if a job of this run waits or runs, or a start without Slurm trains in it."""
    refuse_if_queued(folder)
    refuse_if_trained(folder)


def refuse_if_queued(folder: RunFolder) -> None:
    """Raise ValueError if a job of this run waits or runs: two would write into one folder."""
    submission, found = read(folder), job(folder)
    if submission and found and not found.is_over:
        why = f" ({found.reason})" if found.reason else ""
        raise ValueError(
            f"{folder.path}: job {submission.job_id} of this run is {found.state}{why}; "
            f"`perceiver stop {shlex.quote(str(folder.path))}` ends it after a save"
        )


def job_name(folder: RunFolder) -> str:
    """Return a name for a job of this run that no other has."""
    readable = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in folder.path.name)
    return f"{readable}-{uuid4().hex[:8]}"


def _avoided(folder: RunFolder, profile: ClusterConfig) -> tuple[str, ...]:
    """Return the nodes on which the run failed too often and that its job can do without."""
    history = attempts.history(folder)
    bad = bad_nodes(history, profile.restarts)
    known = {node for attempt in history for node in attempt.nodes}
    usable = SCHEDULERS[profile.scheduler].usable_nodes(profile, known) if bad else ()
    return dispensable(bad, usable=set(usable), needed=profile.nodes)


@contextmanager
def _without_stops(folders: Sequence[RunFolder]) -> Iterator[set[RunFolder]]:
    """Take stops of the runs' users away before a job can see them; those of runs that stay in the set are put back."""
    stopped, left = {folder for folder in folders if folder.stop_path.exists()}, set(folders)
    for folder in stopped:
        folder.stop_path.unlink()
    try:
        yield left
    finally:
        for folder in stopped & left:
            folder.stop_path.touch()
