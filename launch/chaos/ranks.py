"""One start of all ranks in a fault campaign: with their faults, watched until the end, and cleaned up.

The campaign is its own launcher: torchrun or a supervisor would end the other ranks, which have to end by themselves.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from launch.chaos.own_code import with_own_code
from launch.chaos.rank import Plan

LEFT_BEHIND = -1000
"""Stands among the statuses where a process had to be killed by the campaign."""

_START_SECONDS = 900.0
_LEAVE_SECONDS = 60.0


def attempt(
    arguments: list[str], num_ranks: int, plans: Sequence[Plan], victim: int, log_path: Path
) -> tuple[int, ...]:
    """Start all ranks, the victim with the plans, and return how each left."""
    with log_path.open("a") as log, socket.socket() as holder:
        # The system chooses a port, so that campaigns may run side by side, and gives it to no one else while it is
        # held here; rank 0 may listen on it, since this socket allows it and does not listen itself.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = int(holder.getsockname()[1])
        ranks = []
        for rank in range(num_ranks):
            module = ["launch"]
            if plans and rank == victim:
                module = ["launch.chaos.rank", json.dumps([asdict(plan) for plan in plans])]
            command = [sys.executable, "-m", *module, *arguments]
            environment = _environment(rank, num_ranks, port)
            ranks.append(subprocess.Popen(command, env=with_own_code(environment), stdout=log, stderr=log))
        return _watched(ranks, [Path(plan.met_path) for plan in plans if plan.action == "terminate"])


def _watched(ranks: list[subprocess.Popen[bytes]], terminate_paths: list[Path]) -> tuple[int, ...]:
    """Wait for the ranks, pass a planned SIGTERM on to all, and kill what does not leave."""
    deadline = time.monotonic() + _START_SECONDS
    left_behind: tuple[int, ...] = ()
    # A list, and not any(): that would stop at the first rank that runs, and not see that a later one has left.
    while None in [rank.poll() for rank in ranks]:
        if any(path.exists() for path in terminate_paths):
            terminate_paths = []
            for rank in ranks:
                rank.send_signal(signal.SIGTERM)
        if any(rank.returncode is not None for rank in ranks):
            # Once one has left, the watch and the broken exchanges have to end the others.
            deadline = min(deadline, time.monotonic() + _LEAVE_SECONDS)
        if time.monotonic() > deadline:
            left_behind = (LEFT_BEHIND,)
            for rank in ranks:
                rank.kill()
        time.sleep(0.02)
    return (*(rank.wait() for rank in ranks), *left_behind)


def _environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    # One thread each: all ranks share the cores of this machine.
    ours = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return {**os.environ, "MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in ours.items()}}
