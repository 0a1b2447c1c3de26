"""The kill of a local supervisor in a fault campaign: its ranks must end, and the run must be free to start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from launch.chaos.own_code import with_own_code
from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder
from trainer.health.process import start_ticks
from trainer.health.run_lock import is_held

_PAUSE_SECONDS = 0.05
_START_SECONDS = 900.0
_LEAVE_SECONDS = 60.0
_RELEASE_SECONDS = 60.0


def kill_supervisor(
    arguments: Sequence[str], folder: RunFolder, num_ranks: int, num_saves: int, log_path: Path
) -> tuple[bool, str]:
    """Train under supervision and kill the supervisor once there are so many new checkpoints.

    Return whether that happened before the run was finished, and what was not as it should be.
    """
    before, saved = attempts.current(folder), attempts.newest_step(folder)
    command = [sys.executable, "-m", "launch", *arguments, "--procs", str(num_ranks)]

    def is_there() -> bool:
        started = attempts.current(folder) > before and len(attempts.ranks(folder, before + 1)) == num_ranks
        newest = attempts.newest_step(folder)
        return started and (num_saves == 0 or newest > saved)

    with (
        log_path.open("a") as log,
        subprocess.Popen(
            command, env={**with_own_code(), "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
        ) as supervisor,
    ):
        # A run may finish before it has saved so often; then nothing is killed and nothing is wrong.
        _wait(lambda: is_there() or supervisor.poll() is not None, _START_SECONDS)
        if supervisor.poll() is not None:
            return False, "" if supervisor.returncode == 0 else f"a supervised start failed: {supervisor.returncode}"
        ranks = attempts.ranks(folder, attempts.current(folder))
        supervisor.kill()
    # With the time of their start: a process id alone may soon be somebody else's.
    living = {rank.pid: rank.start_ticks for rank in ranks}

    def left() -> list[int]:
        return [pid for pid, ticks in living.items() if start_ticks(pid) == ticks]

    _wait(lambda: not left(), _LEAVE_SECONDS)
    _wait(lambda: bool(left()) or not is_held(folder.lock_path), _RELEASE_SECONDS)
    complaint = f"ranks outlived their supervisor: {left()}" if left() else ""
    if not complaint and is_held(folder.lock_path):
        complaint = "a run without a process is still held"
    for pid in left():
        os.kill(pid, signal.SIGKILL)
    return True, complaint


def _wait(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
