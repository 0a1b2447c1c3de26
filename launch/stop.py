"""`perceiver stop` and `perceiver cancel`: the end of a run's job, with a save or without."""

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from launch import attempts, queue, status, submission
from launch.folder import RunFolder, existing


def stop(path: Path) -> int:
    """Ask the run to save at its next step and to end for good; return the exit status."""
    folder = existing(RunFolder(path.resolve()))
    state = status.read(folder)["state"]
    if state == "finished":
        sys.stdout.write("the run is finished; there is nothing to stop\n")
        return 0
    # All ranks look for it, and so does whoever would start the next attempt.
    folder.stop_path.touch()
    sent, job = submission.read(folder), submission.job(folder)
    if sent and job and job.state == "PENDING":
        queue.cancel(sent.job_id)
        sys.stdout.write(f"job {sent.job_id} waited and is cancelled; `perceiver resume` submits the run again\n")
    elif state in ("unfinished", "failed", "stopped"):
        sys.stdout.write("the run is not running, and does not start again by itself until it is resumed\n")
    else:
        sys.stdout.write("the run saves after its step and ends; `perceiver resume` goes on with it\n")
    return 0


def cancel(path: Path) -> int:
    """End the run's job now; what was not saved is lost. Return the exit status."""
    folder = existing(RunFolder(path.resolve()))
    folder.stop_path.touch()
    sent, job = submission.read(folder), submission.job(folder)
    if sent and job and not job.is_over:
        queue.cancel(sent.job_id)
        sys.stdout.write(f"job {sent.job_id} is cancelled\n")
        return 0
    num_killed = _kill_local(folder)
    sys.stdout.write(f"{num_killed} processes of the run on this machine were killed\n")
    return 0


def _kill_local(folder: RunFolder) -> int:
    living = [
        record
        for record in attempts.ranks(folder, attempts.current(folder))
        if record.status is None and record.node == socket.gethostname() and _runs(record.pid, folder)
    ]
    for record in living:
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGKILL)
    return len(living)


def _runs(pid: int, folder: RunFolder) -> bool:
    """Return whether the process is a rank of the run: its id may belong to another by now."""
    with suppress(OSError):
        return os.fsencode(folder.path) in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
