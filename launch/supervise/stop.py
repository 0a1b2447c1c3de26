"""`perceiver stop` and `perceiver cancel`: end a run's job, with a save or without."""

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from data_shards.files.quoting import counted
from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.run_folder import RunFolder, as_typed, runs_at
from launch.report import status
from launch.schedulers import submission
from trainer.health.process import start_ticks


def stop(path: Path) -> int:
    """Ask a run, or those of a sweep, to save at the next step and to end for good; return the exit status."""
    for folder in runs_at(path):
        sys.stdout.write(f"{as_typed(folder.path)}: {_stop(folder)}\n")
    return 0


def cancel(path: Path) -> int:
    """End the job of a run, or of those of a sweep, now; what was not saved is lost. Return the exit status."""
    for folder in runs_at(path):
        sys.stdout.write(f"{as_typed(folder.path)}: {_cancel(folder)}\n")
    return 0


def _stop(folder: RunFolder) -> str:
    state = status.read(folder)["state"]
    if state == "finished":
        return "the run is finished; there is nothing to stop"
    # All ranks look for it, and so does whoever would start the next attempt.
    folder.stop_path.touch()
    sent, job = submission.read(folder), submission.job(folder)
    # What waits has nothing to save.
    if sent and job and job.state == "PENDING":
        submission.cancel(sent)
        return f"job {sent.job_id} waited and is cancelled; `perceiver resume` submits the run again"
    if state in ("unfinished", "failed", "stopped"):
        return "the run is not running, and does not start again by itself until it is resumed"
    again = "`perceiver resume`" if sent else "the command that started it"
    return f"the run saves after its step and ends; {again} resumes it"


def _cancel(folder: RunFolder) -> str:
    # Before the job ends: the batch script, or the supervisor, looks for it before it starts the next attempt.
    folder.stop_path.touch()
    sent, job = submission.read(folder), submission.job(folder)
    if sent and job and not job.is_over:
        submission.cancel(sent)
        return f"job {sent.job_id} is cancelled"
    here = "of the run on this machine"
    return f"{counted(_kill_local(folder), f'process {here} was', f'processes {here} were')} killed"


def _kill_local(folder: RunFolder) -> int:
    # Of this host alone, and where the id is still that of the rank: an id may belong to another process by now.
    living = [
        record
        for record in attempts.ranks(folder, attempts.current(folder))
        if record.status is None and record.node == socket.gethostname() and _runs(record, folder)
    ]
    for record in living:
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGKILL)
    return len(living)


def _runs(record: RankRecord, folder: RunFolder) -> bool:
    """Return whether the process is the rank that was recorded: its id may belong to another by now."""
    if record.start_ticks:
        return start_ticks(record.pid) == record.start_ticks
    # Recorded by an earlier release.
    with suppress(OSError):
        return os.fsencode(folder.path) in Path(f"/proc/{record.pid}/cmdline").read_bytes()
    return False
