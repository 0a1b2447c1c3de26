"""Who holds up a job is told by heartbeats alone, and whoever ends it ends what is left on its own host."""

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainer.hang import BATCH, LEFT, STEP, HangWatch
from trainer.verdict import Verdict, convicted_pids, text
from trainer.world import World

HERE = socket.gethostname()
SECONDS = 8.0


def forked(work: Callable[[], object]) -> int:
    """Return the process id of a child that does the work and ends with status 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def ended(pid: int, seconds: float = 60.0) -> int | None:
    """Return the exit status of a child, negative for a signal; None where it goes on."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the watch, which stands still unless a test moves it."""
    hands = SimpleNamespace(now=1000.0, monotonic=lambda: hands.now, sleep=lambda seconds: move(hands, seconds))
    monkeypatch.setattr("trainer.hang.time", hands)
    return hands


def move(clock: SimpleNamespace, seconds: float) -> None:
    clock.now += seconds


def watch(folder: Path, *, rank: int = 0, world_size: int = 3, seconds: float = SECONDS) -> HangWatch:
    return HangWatch(folder, World(rank, world_size, rank, torch.device("cpu")), seconds)


def beat(folder: Path, rank: int, count: int = 1, **fields: object) -> None:
    told = {"rank": rank, "host": "elsewhere", "pid": 7, "count": count, "progress": 0, "phase": STEP, **fields}
    (folder / f"rank_{rank}.json").write_text(json.dumps(told))


def named(hang: HangWatch) -> list[tuple[int, str]]:
    return [(heard.rank, why) for heard, why in hang._culprits()]


def test_a_rank_is_silent_when_it_was_not_heard_for_longer_than_the_limit(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    hang = watch(tmp_path)
    for count in range(6):
        hang.at(STEP)
        beat(tmp_path, 0, count)
        beat(tmp_path, 1, count)
        # Its heartbeat stays the first one.
        beat(tmp_path, 2, 1)
        assert named(hang) == ([] if count * 2 <= SECONDS else [(2, "silent for 10 s")])
        move(clock, 2.0)


def test_a_rank_that_left_in_good_order_is_never_silent(tmp_path: Path, clock: SimpleNamespace) -> None:
    hang = watch(tmp_path, world_size=2)
    beat(tmp_path, 1, sys.maxsize, phase=LEFT)
    assert named(hang) == []
    move(clock, 3 * SECONDS)
    hang.at(STEP)
    assert named(hang) == []


def test_who_is_held_up_blames_a_rank_that_missed_its_beats_before_one_that_is_behind(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    hang = watch(tmp_path)
    hang.at(BATCH)
    hang.at(STEP)
    hang._mine = hang._beat(1)
    beat(tmp_path, 1, progress=9)
    beat(tmp_path, 2, progress=0)
    named(hang)
    move(clock, SECONDS / 2)
    beat(tmp_path, 2, count=2, progress=0)
    assert named(hang) == []
    move(clock, SECONDS / 2 + 0.1)
    beat(tmp_path, 2, count=3, progress=0)
    assert named(hang) == [(1, "silent for 8 s")]
    beat(tmp_path, 1, count=2, progress=9)
    assert named(hang) == [(2, "stuck in a step")]


def test_a_rank_that_got_as_far_as_the_least_is_among_those_that_are_stuck(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    hang = watch(tmp_path)
    hang.at(BATCH)
    hang._mine = hang._beat(1)
    assert hang._mine.progress == 1
    move(clock, SECONDS + 0.1)
    beat(tmp_path, 1, progress=1, phase="evaluation")
    beat(tmp_path, 2, progress=2)
    assert named(hang) == [(0, f"stuck in {BATCH}"), (1, "stuck in evaluation")]


def test_slow_steps_are_allowed_for_and_what_lies_between_steps_is_none(tmp_path: Path, clock: SimpleNamespace) -> None:
    hang = watch(tmp_path)
    for seconds in (1.0, 5.0, 2.0):
        hang.at(BATCH)
        move(clock, seconds / 2)
        hang.at(STEP)
        move(clock, seconds / 2)
    hang.at("evaluation")
    assert hang.limit_seconds == 10 * SECONDS
    move(clock, 70.0)
    hang.at(BATCH)
    # The last of the three was ended by the evaluation, and is not known.
    assert hang.limit_seconds == SECONDS + 2 * 5.0
    move(clock, 1.0)
    hang.at(BATCH)
    for _ in range(50):
        hang.at(BATCH)
    assert hang.limit_seconds == SECONDS, "only the newest fifty steps count"


@pytest.mark.parametrize(("sleeps", "is_convicted"), [([60.0], False), ([0.4 * SECONDS] * 4, True)])
def test_a_watch_that_slept_itself_convicts_nobody(
    tmp_path: Path, clock: SimpleNamespace, sleeps: list[float], is_convicted: bool
) -> None:
    hang = watch(tmp_path, world_size=2)
    beat(tmp_path, 1)
    named(hang)
    left = iter(sleeps)

    def wait(_: float) -> bool:
        seconds = next(left, None)
        move(clock, seconds or 0.0)
        return seconds is None

    hang._over = SimpleNamespace(wait=wait)  # type: ignore[assignment]
    hang._end = lambda: None  # type: ignore[method-assign]
    hang._run()
    assert bool(convicted_pids(tmp_path)) is is_convicted
    assert json.loads((tmp_path / "rank_0.json").read_text())["count"] == len(sleeps)


def test_the_first_verdict_holds(tmp_path: Path, clock: SimpleNamespace) -> None:
    first, second = watch(tmp_path, rank=0), watch(tmp_path, rank=2)
    beat(tmp_path, 1, pid=77)
    for hang in (first, second):
        hang._listen()
    move(clock, SECONDS + 1)
    for hang in (first, second):
        hang._convict(hang._culprits())
        beat(tmp_path, 1, pid=78, count=2)
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert (found["culprits"], found["pids"], found["found_by"]) == ([1], [77], 0)
    assert found["named"] == "rank 1 (host elsewhere, process 77): silent for 9 s"
    assert convicted_pids(tmp_path) == {1: 77}


def test_a_watch_lasts_as_long_as_its_context_and_leaves_word_that_it_went(tmp_path: Path) -> None:
    folder = tmp_path / "watch"
    folder.mkdir()
    (folder / "verdict.json").write_text("{}")
    with watch(folder, world_size=1, seconds=20.0) as hang:
        assert not (folder / "verdict.json").exists(), "that of the attempt before"
        assert json.loads((folder / "rank_0.json").read_text())["phase"] == "start"
        assert hang._thread.is_alive()
        assert hang._thread.daemon, "it keeps no process that ends"
    assert not hang._thread.is_alive()
    assert json.loads((folder / "rank_0.json").read_text())["phase"] == LEFT


@pytest.mark.parametrize("error", [ValueError("bad input"), SystemExit(2), RuntimeError("connection closed by peer")])
def test_bad_input_is_told_by_its_own_words_and_a_broken_exchange_by_who_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    gone = forked(lambda: 0)
    os.waitpid(gone, 0)

    def end() -> None:
        with watch(tmp_path / "watch", world_size=1, seconds=20.0) as hang:
            hang._world = World(0, 3, 0, torch.device("cpu"))
            beat(tmp_path / "watch", 1, host=HERE, pid=gone)
            beat(tmp_path / "watch", 2, host=HERE, pid=os.getpid())
            raise error

    with pytest.raises(type(error)):
        end()
    phase = json.loads((tmp_path / "watch" / "rank_0.json").read_text())["phase"]
    if isinstance(error, ValueError | SystemExit):
        assert (phase, capsys.readouterr().err) == (LEFT, "")
    else:
        assert phase != LEFT
        assert capsys.readouterr().err == f"rank 0: connection closed by peer; gone: rank 1 (process {gone})\n"


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_without_a_limit_or_a_folder_nothing_is_watched(tmp_path: Path, seconds: float) -> None:
    folder = tmp_path / "watch" if not seconds else None
    with HangWatch(folder, World(0, 1, 0, torch.device("cpu")), seconds) as hang:
        assert not hang._thread.is_alive()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], object]], int]]:
    """Start a process that does some work; it is gone after the test. Nobody's patience is long."""
    monkeypatch.setattr("trainer.hang._GRACE_SECONDS", 0.2)
    started = []

    def start(work: Callable[[], object]) -> int:
        started.append(forked(work))
        return started[-1]

    yield start
    for pid in started:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


Start = Callable[[Callable[[], object]], int]


@pytest.mark.parametrize(
    ("culprits", "rank", "ends_others"),
    [((2,), 0, True), ((2,), 1, False), ((0,), 0, False), ((0,), 1, True), ((0, 1, 2), 0, True), ((0, 1, 2), 2, False)],
)
def test_the_first_innocent_rank_of_a_host_ends_what_is_left_there_and_nobody_else_does(
    tmp_path: Path, children: Start, culprits: tuple[int, ...], rank: int, ends_others: bool
) -> None:
    pids = {other: children(signal.pause) for other in range(3) if other != rank}
    for other, pid in pids.items():
        beat(tmp_path, other, host=HERE, pid=pid)
        (tmp_path / f"stacks_rank_{other}.txt").touch()
    (tmp_path / "verdict.json").write_text(text(Verdict(culprits, (1,) * len(culprits), "", 0)))
    mine = children(watch(tmp_path, rank=rank, seconds=0.5)._run)
    assert ended(mine) == 1
    assert "most recent call first" in (tmp_path / f"stacks_rank_{rank}.txt").read_text()
    assert [ended(pid, 60.0 if ends_others else 0.0) for pid in pids.values()] == [-9 if ends_others else None] * 2


def test_only_ranks_of_this_host_that_have_not_left_are_ended(tmp_path: Path, children: Start) -> None:
    """By chance other processes of this host have the ids of a rank elsewhere and of one that is gone."""
    elsewhere, gone, peer = (children(signal.pause) for _ in range(3))
    beat(tmp_path, 1, host="elsewhere", pid=elsewhere)
    beat(tmp_path, 2, host=HERE, pid=gone, phase=LEFT)
    beat(tmp_path, 3, host=HERE, pid=peer)
    for rank in (1, 3):
        (tmp_path / f"stacks_rank_{rank}.txt").touch()
    mine = children(watch(tmp_path, world_size=4, seconds=0.1)._run)
    assert (ended(mine), ended(peer)) == (1, -signal.SIGKILL)
    assert (ended(elsewhere, 0.0), ended(gone, 0.0)) == (None, None)
    assert set(convicted_pids(tmp_path)) == {1, 3}


def test_a_stopped_rank_is_woken_to_write_its_stacks(tmp_path: Path, children: Start) -> None:
    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        (tmp_path / "stacks_rank_1.txt").write_text("woken")

    peer = children(stopped)
    os.waitpid(peer, os.WUNTRACED)
    beat(tmp_path, 1, host=HERE, pid=peer)
    mine = children(watch(tmp_path, world_size=2, seconds=0.1)._run)
    assert (ended(mine), ended(peer)) == (1, 0)
    assert (tmp_path / "stacks_rank_1.txt").read_text() == "woken"


def test_a_verdict_that_a_full_disk_does_not_take_ends_this_rank_all_the_same(
    tmp_path: Path, children: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "watch"
    folder.mkdir()
    hang = watch(folder, world_size=2, seconds=0.1)
    beat(folder, 1, pid=77)
    hang._listen()
    shutil.rmtree(folder)
    assert ended(children(hang._run)) == 1
    assert "rank 1 (host elsewhere, process 77): silent for" in (told := capfd.readouterr().err)
    assert "(not written: No such file or directory); the job ends" in told
