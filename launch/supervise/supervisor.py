"""A run's ranks on this machine, restarted by the same rules as on a cluster.

Between the ranks of two attempts nothing is kept but the run's folder:

    lock --> begin attempt --> ranks, in the run's frozen code --> end attempt --> restart policy --> exit status
                 ^                                                                     | again
                 +---------------------------------------------------------------------+
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from launch.lifecycle import attempts, cluster
from launch.lifecycle.exit_status import BAD_INPUT, FINISHED, RUN_ME_AGAIN
from launch.lifecycle.fence import NUMBER, SUPERVISOR
from launch.lifecycle.restart_policy import RestartConfig, verdict
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import inherited
from launch.slurm.batch import free_port, preferred_port
from trainer.health.run_lock import RunLock

STRAGGLER_SECONDS = 60.0


def supervise(
    folder: RunFolder,
    num_processes: int,
    config: RestartConfig,
    *,
    take_over: bool = False,
    output: int | None = None,
    keeps_stop: bool = False,
) -> int:
    """Run the ranks in the run's frozen code until the run has ended for good; return the exit status.

    `output` is the file descriptor for what rank 0 shows on a terminal, in place of standard output. With `keeps_stop`
    a stop that is there already is obeyed: it was asked for after the job was submitted.
    """
    with RunLock(folder.lock_path, take_over=take_over) as lock, _stop_on_signals(folder):
        # Only now: a start that is refused must not take away a stop that is meant for the first.
        if not keeps_stop:
            folder.stop_path.unlink(missing_ok=True)
        num_before = attempts.current(folder)
        while True:
            attempt = attempts.begin(folder, job_id="", nodes=[socket.gethostname()])
            status = _attempt(folder, attempt.number, num_processes, lock.descriptor, output)
            ended = attempts.end(folder, attempt.number, status)
            # The limits are those of one start: a person who starts the run again wants it tried again.
            own = [each for each in attempts.history(folder, after=num_before) if each.number < ended.number]
            decision = verdict([*own, ended], config, stop_requested=folder.stop_path.exists())
            sys.stderr.write(f"perceiver: attempt {attempt.number} ended with status {status}: {decision.reason}\n")
            if not decision.again:
                return status


def _attempt(folder: RunFolder, number: int, num_processes: int, lock: int, output: int | None) -> int:
    shared = inherited.of_local_ranks() | {
        NUMBER: str(number),
        SUPERVISOR: str(os.getpid()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port(preferred_port(os.getpid(), number))),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
    }
    # -u: the last words of a rank that is killed are in its log.
    command = [sys.executable, "-u", "-m", "launch.supervise.rank", str(folder.path)]
    # The ranks hold the lock too: it is free once the last process of the run is gone.
    ranks = [
        subprocess.Popen(
            command,
            # `python -m` imports from the working directory: a restart runs the code that the run began with.
            cwd=folder.code_folder,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=output,
            pass_fds=[lock],
        )
        for rank in range(num_processes)
    ]
    return _wait(ranks)


def _wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Return the worst status once all ranks have left; those that stay behind too long are killed."""
    deadline = float("inf")
    # A list, and not any(): that would stop at the first rank that runs, and not see that a later one has left.
    while None in [rank.poll() for rank in ranks]:
        if deadline == float("inf") and any(rank.returncode is not None for rank in ranks):
            deadline = time.monotonic() + STRAGGLER_SECONDS
        if time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
        time.sleep(0.1)
    # A process that a signal ended has a negative status; shells say 128 + its number.
    statuses = [code if code >= 0 else 128 - code for code in (rank.returncode for rank in ranks)]
    # A rank that failed decides, though others saved and left in good order.
    failures = [status for status in statuses if status not in (FINISHED, RUN_ME_AGAIN)]
    return max(failures or statuses)


@contextmanager
def _stop_on_signals(folder: RunFolder) -> Iterator[None]:
    """Turn Ctrl-C and TERM into a stop: the ranks see the file, save and leave, and no attempt follows."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        folder.stop_path.touch()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(path: str) -> int:
    """Train a submitted run in the background, as its profile says; return the exit status."""
    folder = RunFolder(Path(path))
    try:
        profile = cluster.load(str(folder.cluster_path))
        return supervise(folder, profile.processes_per_node, profile.restarts, keeps_stop=True)
    except ValueError as error:
        sys.stderr.write(f"perceiver: {error}\n")
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
