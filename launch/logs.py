"""`perceiver logs`: what a rank printed, attempt after attempt."""

import sys
import time
from pathlib import Path

from launch import attempts, submission
from launch.folder import RunFolder, existing
from launch.rank import log_path


def main(path: Path, *, rank: int, attempt: int, batch: bool, follow: bool) -> int:
    """Print a log, and with `follow` whatever is added to it and to those of later attempts; return the exit status."""
    folder = existing(RunFolder(path.resolve()))
    if batch:
        _copy(_batch_log(folder), 0)
        return 0
    number = attempt or attempts.current(folder)
    log = log_path(folder, number, rank)
    if not log.is_file() and not follow:
        there = ", ".join(sorted(file.name for file in folder.logs_folder.glob("attempt_*"))) or "none"
        raise ValueError(f"{log}: no such log; there are {there}; --batch shows what the batch script printed")
    position = 0
    while True:
        position = _copy(log_path(folder, number, rank), position)
        if not follow:
            return 0
        if not attempt and number < attempts.current(folder):
            number, position = number + 1, 0
        time.sleep(0.5)


def _batch_log(folder: RunFolder) -> Path:
    sent = submission.read(folder)
    # A task of an array writes beside the logs of the array's first run.
    found = folder.path.parent.glob(f"*/{folder.logs_folder.name}/{sent.job_id}_0_log.out") if sent else iter(())
    log = next(found, None)
    if log is None:
        raise ValueError(f"{folder.path}: no log of a batch script; the run was never submitted, or waits")
    return log


def _copy(log: Path, position: int) -> int:
    """Print what a log has after a position, and return where it ends."""
    if not log.is_file():
        return position
    with log.open("rb") as file:
        file.seek(position)
        sys.stdout.buffer.write(file.read())
        sys.stdout.flush()
        return file.tell()
