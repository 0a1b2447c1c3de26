"""Two starts never share a run; a dead one does not hold it, except on a host that cannot be seen."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.lock import RunLock
from trainer.world import World

HOLDER = """
import sys, pathlib
from trainer.lock import RunLock
from trainer.world import World
with RunLock(pathlib.Path(sys.argv[1]), World.alone()):
    print("held", flush=True)
    sys.stdin.read()
"""


def world() -> World:
    return World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


def test_the_second_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        RunLock(path, world()),
        pytest.raises(ValueError, match=f"process {os.getpid()} on {socket.gethostname()}, since"),
    ):
        RunLock(path, world()).__enter__()
    with RunLock(path, world()):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid}"):
            RunLock(path, world()).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with RunLock(path, world()):
        pass


def test_a_lock_of_another_host_needs_the_flag_or_the_same_job(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    claim = json.dumps({"host": "elsewhere", "pid": 7, "since": "2026-01-01T00:00:00+00:00", "job_id": "42"})
    path.write_text(claim)
    with pytest.raises(ValueError, match=r"process 7 on elsewhere.*--take-over"):
        RunLock(path, world(), job_id="43").__enter__()
    assert path.read_text() == claim
    for allowed in ({"take_over": True}, {"job_id": "42"}):
        path.write_text(claim)
        with RunLock(path, world(), **allowed):
            assert json.loads(path.read_text())["pid"] == os.getpid()
