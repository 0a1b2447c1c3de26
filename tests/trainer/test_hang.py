"""A rank that does not go on is named, everyone's stacks are kept, and no process is left."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from warm_start import finished

from trainer.distributed.board import Board
from trainer.distributed.node import Node
from trainer.distributed.world import World
from trainer.health.hang import BATCH, STEP, HangWatch
from trainer.health.heartbeats import Beat, path_of, read, write

# Rank 0 of four: rank 2 is of its host, rank 1 of another, whose process has by chance the id of one here.
CONVICTS = """
import os, socket, sys, torch
from pathlib import Path
from trainer.health.heartbeats import Beat
from trainer.distributed.board import Board
from trainer.health.hang import HangWatch
from trainer.distributed.node import Node
from trainer.distributed.world import World
hang = HangWatch(Path(sys.argv[1]), World(0, 3, 0, torch.device("cpu")), 0.1)
board = Board.create(2)
first = [
    Beat(0, socket.gethostname(), os.getpid(), 0, 0, "a step"),
    Beat(1, "elsewhere", int(sys.argv[2]), 0, 0, "a step"),
    Beat(2, socket.gethostname(), int(sys.argv[3]), 0, 0, "a step"),
]
hang.listen_to(Node(0, (0, 1, 0), board), first)
hang._run()
"""
# The scenario allows 4 s; a loaded machine adds to starting, noticing and ending.
WITHIN_SECONDS = 150


Ended = tuple[Path, list[int], float]
# The ranks of each world, and the arguments of the scenario after the folder; those that wait longest come first.
PHASES = ("a save", "evaluation")
OF_HOSTS = ((0, "stopped"), (2, "stopped"), (3, "stuck"), (0, "stuck"))
WORLDS = (
    *((2, phase, 1.0) for phase in PHASES),
    *((3, fault) for fault in ("stopped", "stuck", "killed", "raises")),
    *((4, fault, 4.0, culprit, 2) for culprit, fault in OF_HOSTS),
)


@pytest.fixture(scope="module")
def ended(run_ranks: Callable[..., list], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ended]]:
    """Return the folder of a world's watch, the statuses of its ranks and how long it was there, in seconds.

    Several worlds are there at the same time, since most of what they do is to wait.
    """
    folder = tmp_path_factory.mktemp("hang")

    def run(ranks: int, *arguments: object) -> Ended:
        watched, started = folder / " ".join(map(str, (ranks, *arguments))), time.monotonic()
        statuses = run_ranks("hang", ranks, watched, *arguments, fails=True)
        return watched, statuses, time.monotonic() - started

    with ThreadPoolExecutor(max_workers=3) as pool:
        worlds = {world: pool.submit(run, *world) for world in WORLDS}
        yield lambda *world: worlds[world].result()


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "why"), [("stopped", "silent for"), ("stuck", "stuck in waiting for its batch")])
def test_a_rank_that_holds_up_the_others_is_named_and_all_end_with_their_stacks_written(
    ended: Callable[..., Ended], fault: str, why: str
) -> None:
    folder, statuses, seconds = ended(3, fault)
    assert seconds < WITHIN_SECONDS
    assert statuses == [1, 1, 1]
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["culprits"] == [1]
    assert verdict["named"].startswith("rank 1 (host ")
    assert why in verdict["named"]
    stacks = [(folder / f"stacks_rank_{rank}.txt").read_text() for rank in range(3)]
    # A stopped process goes on for the moment that it needs to write.
    assert ("meet_the_fault" if fault == "stuck" else "in <module>") in stacks[1]
    assert all("in barrier" in stacks[rank] for rank in (0, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("culprit", "fault"), OF_HOSTS)
def test_a_rank_of_any_host_is_named_and_all_ranks_of_all_hosts_write_their_stacks(
    ended: Callable[..., Ended], fault: str, culprit: int
) -> None:
    """Ranks 0 and 1 are of one host, 2 and 3 of another."""
    folder, statuses, seconds = ended(4, fault, 4.0, culprit, 2)
    assert statuses == [1, 1, 1, 1]
    assert seconds < WITHIN_SECONDS
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["culprits"] == [culprit]
    assert verdict["named"].startswith(f"rank {culprit} (host n{culprit // 2}, ")
    assert {"stopped": "silent for", "stuck": "stuck in waiting for its batch"}[fault] in verdict["named"]
    stacks = [(folder / f"stacks_rank_{rank}.txt").read_text() for rank in range(4)]
    assert all("in barrier" in stacks[rank] for rank in range(4) if rank != culprit)
    assert sorted(path.name for path in folder.glob("node_*")) == ["node_0.json", "node_2.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "status"), [("killed", -9), ("raises", 1)])
def test_a_rank_that_dies_ends_the_others_with_a_failure(ended: Callable[..., Ended], fault: str, status: int) -> None:
    _, statuses, _ = ended(3, fault)
    assert statuses[1] == status
    assert all(other != 0 for other in statuses)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_outside_of_steps_a_rank_has_ten_times_as_long_and_is_named_then(
    ended: Callable[..., Ended], phase: str
) -> None:
    folder, statuses, seconds = ended(2, phase, 1.0)
    assert statuses == [1, 1]
    assert seconds > 10
    verdict = json.loads((folder / "verdict.json").read_text())
    # All got as far as this one, so that it cannot be told from those that wait for it; their stacks can.
    assert sorted(verdict["culprits"]) == [0, 1]
    assert verdict["named"].count(f"stuck in {phase}") == 2
    stacks = [(folder / f"stacks_rank_{rank}.txt").read_text() for rank in range(2)]
    assert ["in barrier" in stack for stack in stacks] == [True, False]


def watch(folder: Path, *, seconds: float = 30.0) -> HangWatch:
    """Return the watch of rank 0 of two, each on a host of its own."""
    folder.mkdir(exist_ok=True)
    hang = HangWatch(folder, World(0, 2, 0, torch.device("cpu")), seconds)
    first = [Beat(rank, "elsewhere", 1, 0, 0, "a step") for rank in range(2)]
    hang.listen_to(Node(0, (0, 1), Board.alone()), first)
    return hang


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
        words = [sys.executable, "-c", CONVICTS, str(tmp_path), str(bystander.pid), str(peer.pid)]
        ended = finished(words, timeout=120)
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
    hang._ranks.listen()
    hang._ranks.newest = {rank: (beat, time.monotonic() - 60) for rank, (beat, _) in hang._ranks.newest.items()}
    assert hang._culprits()
    hang._seconds = 30.0
    hang._ranks.forgive(hang._ranks.newest)
    assert not hang._culprits()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"5", b"[]", b'[{"rank": 1}]', b"0 1 2", b"00000000 0 \n"])
def test_a_damaged_heartbeat_is_no_heartbeat_and_ends_no_watch(tmp_path: Path, content: bytes) -> None:
    hang = watch(tmp_path)
    before = dict(hang._ranks.newest)
    path_of(tmp_path, 1).write_bytes(content)
    hang._ranks.listen()
    assert hang._ranks.newest[1][0] == before[1][0]
    assert hang._culprits() == []
    write(path_of(tmp_path, 1), [Beat(1, "elsewhere", 1, 5, 0, "a step")])
    whole = path_of(tmp_path, 1).read_bytes()
    assert read(path_of(tmp_path, 1))
    for number in range(len(whole) - 1):
        path_of(tmp_path, 1).write_bytes(whole[:number] + bytes([whole[number] ^ 1]) + whole[number + 1 :])
        assert read(path_of(tmp_path, 1)) in ([], [Beat(1, "elsewhere", 1, 5, 0, "a step")])
