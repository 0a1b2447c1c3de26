"""`perceiver logs`: the output of a rank, attempt after attempt."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder, existing
from launch.schedulers import submission

_NONE = (
    "none: a start without --procs and without Slurm prints where it was typed, or into the file to which its output "
    "was sent"
)


def main(path: Path, *, rank: int, attempt: int, batch: bool, follow: bool) -> int:
    """Print a log, and with `follow` whatever is added to it and to those of later attempts; return the exit status."""
    folder = existing(RunFolder(path.resolve()))
    if batch:
        _copy(_batch_log(folder), 0)
        return 0
    number = attempt or attempts.current(folder)
    log = folder.log_path(number, rank)
    if not log.is_file() and not follow:
        there = ", ".join(sorted(file.name for file in folder.logs_folder.glob("attempt_*"))) or _NONE
        raise ValueError(f"{log}: no such log; there are {there}; --batch shows what the batch script printed")
    position = 0
    while True:
        position = _copy(folder.log_path(number, rank), position)
        if not follow:
            return 0
        # The log of this attempt was printed to its end just now; what follows stands in that of the next.
        if not attempt and number < attempts.current(folder):
            number, position = number + 1, 0
        time.sleep(0.5)


def _batch_log(folder: RunFolder) -> Path:
    sent = submission.read(folder)
    log = next(filter(Path.is_file, _batch_logs(folder, sent)), None) if sent else None
    if log is None:
        raise ValueError(f"{folder.path}: no log of a batch script; the run was never submitted, or waits")
    return log


def _batch_logs(folder: RunFolder, sent: submission.Submission) -> Iterator[Path]:
    """Yield where the log of a submission may be: a task of an array writes beside those of the array's first run."""
    name = f"{sent.job_id}_0_log.out"
    yield folder.logs_folder / name
    for beside in folder.path.parent.glob(f"*/{folder.submission_path.name}"):
        other = RunFolder(beside.parent)
        found = submission.read(other)
        # Slurm uses an id again, and a sibling may be of another cluster: only the job's name is nobody else's.
        if found and found.job_name == sent.job_name:
            yield other.logs_folder / name


def _copy(log: Path, position: int) -> int:
    """Print what a log has after a position, and return where it ends."""
    if not log.is_file():
        return position
    # As bytes: half a character at the end of a log that is being written is no error.
    with log.open("rb") as file:
        file.seek(position)
        sys.stdout.buffer.write(file.read())
        sys.stdout.flush()
        return file.tell()
