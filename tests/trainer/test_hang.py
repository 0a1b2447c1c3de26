"""A rank that does not go on is named, everyone's stacks are kept, and no process is left."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.hang import BATCH, STEP, HangWatch
from trainer.world import World

CONVICTS = """
import sys, torch
from pathlib import Path
from trainer.hang import HangWatch
from trainer.world import World
hang = HangWatch(Path(sys.argv[1]), World(0, 3, 0, torch.device("cpu")), 0.1)
hang._run()
"""
# The scenario allows 4 s; a loaded machine adds to starting, noticing and ending.
WITHIN_SECONDS = 45


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "why"), [("stopped", "silent for"), ("stuck", "stuck in waiting for its batch")])
def test_a_rank_that_holds_up_the_others_is_named_and_all_end_with_their_stacks_written(
    run_ranks: Callable[..., list], tmp_path: Path, fault: str, why: str
) -> None:
    started = time.monotonic()
    statuses = run_ranks("hang", 3, tmp_path / "watch", fault, fails=True)
    assert time.monotonic() - started < WITHIN_SECONDS
    assert statuses == [1, 1, 1]
    verdict = json.loads((tmp_path / "watch" / "verdict.json").read_text())
    assert verdict["culprits"] == [1]
    assert verdict["named"].startswith("rank 1 (host ")
    assert why in verdict["named"]
    stacks = [(tmp_path / "watch" / f"stacks_rank_{rank}.txt").read_text() for rank in range(3)]
    # A stopped process goes on for the moment that it needs to write.
    assert ("meet_the_fault" if fault == "stuck" else "in <module>") in stacks[1]
    assert all("in barrier" in stacks[rank] for rank in (0, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "status"), [("killed", -9), ("raises", 1)])
def test_a_rank_that_dies_ends_the_others_with_a_failure(
    run_ranks: Callable[..., list], tmp_path: Path, fault: str, status: int
) -> None:
    statuses = run_ranks("hang", 3, tmp_path / "watch", fault, fails=True)
    assert statuses[1] == status
    assert all(other != 0 for other in statuses)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["a save", "evaluation"])
def test_outside_of_steps_a_rank_has_ten_times_as_long_and_is_named_then(
    run_ranks: Callable[..., list], tmp_path: Path, phase: str
) -> None:
    started = time.monotonic()
    assert run_ranks("hang", 2, tmp_path / "watch", phase, 1.0, fails=True) == [1, 1]
    assert time.monotonic() - started > 10
    verdict = json.loads((tmp_path / "watch" / "verdict.json").read_text())
    # All got as far as this one, so that it cannot be told from those that wait for it; their stacks can.
    assert sorted(verdict["culprits"]) == [0, 1]
    assert verdict["named"].count(f"stuck in {phase}") == 2
    stacks = [(tmp_path / "watch" / f"stacks_rank_{rank}.txt").read_text() for rank in range(2)]
    assert ["in barrier" in stack for stack in stacks] == [True, False]


def watch(folder: Path, *, rank: int = 0, world_size: int = 2, seconds: float = 30.0) -> HangWatch:
    folder.mkdir(exist_ok=True)
    return HangWatch(folder, World(rank, world_size, rank, torch.device("cpu")), seconds)


def beat(folder: Path, *, rank: int, host: str, pid: int, count: int = 1) -> None:
    fields = {"rank": rank, "host": host, "pid": pid, "count": count, "progress": 0, "phase": "a step"}
    (folder / f"rank_{rank}.json").write_text(json.dumps(fields))


def test_what_the_main_thread_is_at_decides_how_long_it_may_take(tmp_path: Path) -> None:
    hang = watch(tmp_path)
    for phase in ("start", "a save", "evaluation", "the last save", "going back"):
        hang.at(phase)
        assert hang.limit_seconds == 300
    for phase in (BATCH, STEP):
        hang.at(phase)
        assert hang.limit_seconds == 30
    hang.at(BATCH)
    assert 30 < hang.limit_seconds < 31, "twice the slowest recent step comes on top"


@pytest.mark.slow
def test_processes_of_other_hosts_are_never_signalled(tmp_path: Path) -> None:
    """A process here has by chance the id that a rank of another host has; its own rank here is ended."""
    bystander, peer = subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "600"])
    try:
        tmp_path.mkdir(exist_ok=True)
        beat(tmp_path, rank=1, host="elsewhere", pid=bystander.pid)
        beat(tmp_path, rank=2, host=socket.gethostname(), pid=peer.pid)
        words = [sys.executable, "-c", CONVICTS, str(tmp_path)]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 1, ended.stderr
        assert "rank 1 (host elsewhere" in ended.stderr
        assert peer.wait(60) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        for process in (bystander, peer):
            process.kill()
            process.wait()


def test_a_rank_that_was_stopped_itself_takes_nobody_for_silent(tmp_path: Path) -> None:
    hang = watch(tmp_path, seconds=0.01)
    beat(tmp_path, rank=1, host="elsewhere", pid=1)
    assert hang._listen()
    hang._since = time.monotonic() - 60
    hang._heard = {rank: (heard, time.monotonic() - 60) for rank, (heard, _) in hang._heard.items()}
    assert hang._culprits()
    hang._seconds = 30.0
    hang._forgive()
    assert not hang._culprits()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"5", b"[]", b'{"rank": 1}'])
def test_a_damaged_heartbeat_is_no_heartbeat_and_ends_no_watch(tmp_path: Path, content: bytes) -> None:
    hang = watch(tmp_path)
    (tmp_path / "rank_1.json").write_bytes(content)
    assert hang._listen() == {}
    assert hang._culprits() == []
