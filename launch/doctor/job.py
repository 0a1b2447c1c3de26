"""The doctor's job on a cluster: short, reported while it waits, and removed with its folder however it ends.

The doctor and the ranks speak by files in one folder, which is what a run will need too:

    doctor   submits | waits for every ready_K.json          | signals USR2 | reads report_K.json, removes all
    ranks            | meet, measure, leave ready_K.json     | wait for it  | leave report_K.json
"""

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from data_shards.files.quoting import counted
from launch.lifecycle.cluster import ClusterConfig
from launch.run.frozen_code import installed_folder
from launch.slurm import door, inherited, queue

MINUTES = 10
"""The job's time limit, unless the profile's is shorter: a short job starts sooner."""
WAIT_SECONDS = 300.0
"""How long the job may wait, and then how long it may run, before the doctor gives up."""
LEAVE_SECONDS = 60.0
"""How long a cancelled job may take to leave its nodes; Slurm's KillWait is 30 s by default."""


@dataclass(frozen=True)
class Answer:
    """The outcome of the job."""

    job_id: str
    reports: list[dict[str, Any]]
    """The findings of the ranks that answered, by rank."""
    state: str
    """Slurm's last word on the job."""
    printed: str
    """The end of its log."""


def run(profile: ClusterConfig, folder: Path) -> Answer:
    """Run the doctor's ranks on the cluster; ValueError with Slurm's words where it takes no such job."""
    minutes = min(profile.minutes, MINUTES)
    # The signal of the profile may come later than such a short job lasts.
    short = replace(profile, minutes=minutes, signal_seconds=min(profile.signal_seconds, 30 * minutes))
    sys.stderr.write(inherited.sentence())
    with _ends_in_order(), _shared(folder) as shared:
        # No other job has it, and it is known before sbatch answers: the job can be found whatever happens.
        name = shared.name.lstrip(".")
        try:
            job_id = door.submit_module("launch.doctor.rank", shared, short, code=installed_folder(), job_name=name)
            ranks, nodes = counted(profile.world_size, "rank"), counted(profile.nodes, "node")
            _say(f"job {job_id} asks for {ranks} on {nodes}, {counted(minutes, 'minute')}")
            reports, state = _wait(shared, job_id, name, profile.world_size)
        finally:
            # Whatever comes now, nothing of it stays behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            _end(name)
        printed = "\n".join(log.read_text(errors="replace") for log in shared.glob("*_log.out"))[-2000:]
        return Answer(job_id, reports, state, printed)


def _wait(shared: Path, job_id: str, name: str, world_size: int) -> tuple[list[dict[str, Any]], str]:
    """Return the reports, once all are there or no more can come, and what the job was last."""
    deadline, told, state, runs = time.monotonic() + WAIT_SECONDS, False, "", False
    while time.monotonic() < deadline:
        # Only once all are ready: a rank without its handler would be ended by the signal.
        if not told and len(list(shared.glob("ready_*.json"))) == world_size:
            _say("all ranks have met; they wait for the signal that comes before a time limit")
            queue.signal_ranks(job_id, "USR2")
            told = True
        job = queue.find(job_id, name)
        seen = f"job {job_id} is {job.state}{f' ({job.reason})' if job.reason else ''}" if job else "Slurm forgot it"
        if seen != state:
            state = seen
            _say(f"{state}{f' on {job.nodes}' if job and job.nodes else ''}")
        if job and job.state == "RUNNING" and not runs:
            # Waiting in the queue is not the job's own time.
            deadline, runs = time.monotonic() + WAIT_SECONDS, True
        # A job that ended without all reports has lost a rank: its log says which.
        if len(list(shared.glob("report_*.json"))) == world_size or job is None or job.is_over:
            break
        time.sleep(0.5)
    else:
        state += f", and the doctor waits no longer than {WAIT_SECONDS:.0f} s"
    reports = [json.loads(path.read_text()) for path in shared.glob("report_*.json")]
    return sorted(reports, key=lambda report: int(report["rank"])), state


def _end(name: str) -> None:
    """Cancel the job by its name, which is known before its id, until it has left."""
    deadline, looks = time.monotonic() + LEAVE_SECONDS, 0
    try:
        # Looked for twice: Slurm may learn of a submission that was broken off a moment after it.
        while (left := queue.named(name)) or looks < 2:
            for job_id in left:
                with suppress(ValueError):  # it may have ended just now
                    queue.cancel(job_id)
            if time.monotonic() > deadline:
                _say(f"job {', '.join(left)} does not end; see squeue")
                return
            looks += 1
            time.sleep(0.5)
    except ValueError as error:
        _say(f"{error}; end the job with: scancel --name={name}")


@contextmanager
def _shared(folder: Path) -> Iterator[Path]:
    """Make a folder where the runs will be, for it is that disk which has to be shared."""
    shared = Path(tempfile.mkdtemp(prefix=".doctor-", dir=folder)).resolve()
    try:
        (shared / "token").touch()
        yield shared
    finally:
        # A rank that is being killed may write once more.
        for _ in range(10):
            shutil.rmtree(shared, ignore_errors=True)
            if not shared.exists():
                break
            time.sleep(0.5)


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Turn signals that would end this process at once into an exit that cleans up."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        # Under nohup, SIGHUP stays ignored.
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(words: str) -> None:
    sys.stderr.write(f"doctor: {words}\n")
