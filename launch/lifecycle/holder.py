"""The holder of a run's lock, as far as this host can know. Standard library only, like launch/slurm/batch.py.

On this host the kernel knows who holds the lock. Of another host there are the heartbeats of the newest attempt.
"""

import shlex
import socket

from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder
from trainer.health import run_lock


def holder(folder: RunFolder) -> str:
    """Return who trains in the run, in words; empty if nobody seems to."""
    claim = run_lock.claim_in(folder.lock_path)
    # Either is enough: disks without locks have the process, and a process of a container is seen by its lock alone.
    if run_lock.is_alive_here(claim) or run_lock.is_held(folder.lock_path):
        return run_lock.told(claim)
    # The file of a process on a lost host says for ever that it trains; its heartbeats stop.
    is_elsewhere = bool(claim) and claim.get("host") != socket.gethostname()
    return run_lock.told(claim) if is_elsewhere and attempts.is_beating(folder, attempts.current(folder)) else ""


def refuse_if_trained(folder: RunFolder) -> None:
    """Raise ValueError where a start without Slurm trains in the run; a job is known by the queue."""
    # What a job leaves behind, a claim and heartbeats of a moment ago, must not hold up the next submission.
    newest = attempts.current(folder)
    if newest and attempts.read(folder, newest).job_id:
        return
    if words := holder(folder):
        raise ValueError(
            f"{folder.path}: {words}, trains in this run; wait for it, or end it after a save with "
            f"`perceiver stop {shlex.quote(str(folder.path))}`"
        )
