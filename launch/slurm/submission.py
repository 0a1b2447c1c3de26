"""The submission of a run: its record in the run's folder, and the job that it became."""

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from uuid import uuid4

from data_shards.files import atomic, history
from launch.lifecycle import attempts
from launch.lifecycle.holder import refuse_if_trained
from launch.lifecycle.restart_policy import bad_nodes, dispensable
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import cluster, queue
from launch.slurm.cluster import ClusterConfig


@dataclass(frozen=True)
class Submission:
    """A job that was asked for."""

    job_id: str
    """Such as 12, or 12_3 for a task of an array."""
    job_name: str
    """Unique, so that a job id that Slurm uses again is not taken for this one."""
    submitted_at: float
    """Unix seconds."""
    nodes: int
    """Asked for."""
    processes_per_node: int
    """Asked for."""


def send(folders: Sequence[RunFolder], profile: ClusterConfig) -> list[Submission]:
    """Submit runs that exist, several as job arrays; ValueError if one is in the queue already or is trained."""
    # Here: a rank that starts asks this file whether its run is queued, and submits nothing.
    from launch.slurm import door, packing

    for folder in folders:
        refuse_if_taken(folder)
    packed = packing.pack(profile)
    for folder in folders:
        atomic.write(folder.cluster_path, cluster.dump(profile))
    avoided = {node for folder in folders for node in _avoided(folder, profile)}
    name = job_name(folders[0])
    submissions: list[Submission] = []
    for part in arrays(folders, queue.max_array_tasks() if len(folders) > 1 else None):
        try:
            with _without_stops(part):
                job_ids = door.submit(part, profile, job_name=name, exclude=sorted(avoided), packed=packed)
        except ValueError as error:
            if not submissions:
                raise
            left = (
                f"{len(submissions)} of {len(folders)} runs were submitted, up to {folders[len(submissions) - 1].path}"
            )
            raise ValueError(f"{left}; then {error}; `perceiver resume RUN` submits each that is left") from error
        for folder, job_id in zip(part, job_ids, strict=True):
            sent = Submission(job_id, name, time.time(), profile.nodes, profile.processes_per_node)
            atomic.write(folder.submission_path, json.dumps(asdict(sent)) + "\n")
            submissions.append(sent)
    return submissions


def arrays(folders: Sequence[RunFolder], max_tasks: int | None) -> list[Sequence[RunFolder]]:
    """Return the runs of each job array: as many as Slurm lets one have, where it says how many."""
    length = max_tasks or len(folders)
    return [folders[start : start + length] for start in range(0, len(folders), length)]


def read(folder: RunFolder) -> Submission | None:
    """Return the newest submission of a run; None for one that was never submitted."""
    return history.entry(Submission, folder.submission_path)


def job(folder: RunFolder) -> queue.Job | None:
    """Return the run's job as long as Slurm remembers it."""
    submission = read(folder)
    return queue.find(submission.job_id, submission.job_name) if submission else None


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
    usable = set(queue.usable_nodes(profile.partition, profile.constraint, known)) if bad else set()
    return dispensable(bad, usable=usable - set(queue.expanded(profile.exclude)), needed=profile.nodes)


@contextmanager
def _without_stops(folders: Sequence[RunFolder]) -> Iterator[None]:
    """Take stops of the runs' users away before a job can see them; if it is refused they hold on."""
    stopped = [folder for folder in folders if folder.stop_path.exists()]
    for folder in stopped:
        folder.stop_path.unlink()
    try:
        yield
    except BaseException:
        for folder in stopped:
            folder.stop_path.touch()
        raise
