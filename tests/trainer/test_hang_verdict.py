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
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainer.distributed.board import Board
from trainer.distributed.node import Node
from trainer.distributed.world import World
from trainer.health.hang import BATCH, LEFT, STEP, HangWatch
from trainer.health.heartbeats import Beat, path_of, read, write
from trainer.health.verdict import Verdict, convicted_pids, text

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
    monkeypatch.setattr("trainer.health.hang.time", hands)
    monkeypatch.setattr("trainer.health.heartbeats.time", hands)
    return hands


def move(clock: SimpleNamespace, seconds: float) -> None:
    clock.now += seconds


def watch(
    folder: Path, *, rank: int = 0, world_size: int = 3, seconds: float = SECONDS, pids: dict[int, int] | None = None
) -> HangWatch:
    """Return a watch of a rank that shares its host with those that have a process here; others are alone on theirs."""
    hang = HangWatch(folder, World(rank, world_size, rank, torch.device("cpu")), seconds)
    here = sorted({rank, *(pids or ())})
    made = Board.create(len(here))
    assert made is not None
    made.close_to_others()
    first_of = tuple(here[0] if other in here else other for other in range(world_size))
    first = [
        Beat(other, HERE if other in here else "elsewhere", (pids or {}).get(other, 7), 0, 0, STEP)
        for other in range(world_size)
    ]
    hang.listen_to(Node(rank, first_of, made), first)
    return hang


def beat(folder: Path, rank: int, count: int = 1, **fields: object) -> None:
    """Tell a beat of a rank that is alone on its host."""
    told = {"host": "elsewhere", "pid": 7, "progress": 0, "phase": STEP, **fields}
    write(path_of(folder, rank), [Beat(rank, count=count, **told)])  # type: ignore[arg-type]


def post(hang: HangWatch, rank: int, **fields: object) -> None:
    """Tell a beat of a rank of the same host."""
    node = hang._ranks.node
    told = Beat(**{"rank": rank, "host": HERE, "pid": 7, "count": 1, "progress": 0, "phase": STEP, **fields})  # type: ignore[arg-type]
    node.board.put(node.ranks.index(rank), json.dumps(asdict(told)).encode())


def named(hang: HangWatch) -> list[tuple[int, str]]:
    hang._ranks._next_exchange = 0.0
    hang._ranks.listen()
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
    beat(tmp_path, 1, progress=9)
    beat(tmp_path, 2, progress=0)
    named(hang)
    move(clock, SECONDS / 2)
    hang._ranks.tell(hang._beat())
    beat(tmp_path, 2, count=2, progress=0)
    assert named(hang) == []
    move(clock, SECONDS / 2 + 0.1)
    hang._ranks.tell(hang._beat())
    beat(tmp_path, 2, count=3, progress=0)
    assert named(hang) == [(1, "silent for 8 s")]
    beat(tmp_path, 1, count=2, progress=9)
    assert named(hang) == [(2, "stuck in a step")]


def test_a_rank_that_got_as_far_as_the_least_is_among_those_that_are_stuck(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    hang = watch(tmp_path)
    hang.at(BATCH)
    move(clock, SECONDS + 0.1)
    hang._ranks.tell(hang._beat())
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
    assert hang._ranks.newest[0][0].count == len(sleeps)


def test_the_first_verdict_holds(tmp_path: Path, clock: SimpleNamespace, disk_calls: list[tuple[str, str]]) -> None:
    first, second = watch(tmp_path, rank=0), watch(tmp_path, rank=2)
    for hang in (first, second):
        beat(tmp_path, 1, pid=77)
        beat(tmp_path, 0, pid=78)
        named(hang)
    move(clock, SECONDS + 1)
    for hang in (first, second):
        hang._convict(hang._culprits())
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert (found["culprits"], found["pids"], found["found_by"]) == ([1, 2], [77, 7], 0)
    assert found["named"].startswith("rank 1 (host elsewhere, process 77): silent for 9 s; rank 2 ")
    assert convicted_pids(tmp_path) == {1: 77, 2: 7}
    assert "sync" not in {kind for kind, _ in disk_calls}, "a disk that hangs must not hold up the verdict"


def test_a_verdict_that_cannot_be_read_convicts_nobody(tmp_path: Path) -> None:
    whole = {"culprits": [1, 2], "pids": [7, 8], "named": "", "found_by": 0}
    for content, found in (
        (json.dumps(whole), {1: 7, 2: 8}),
        (json.dumps({**whole, "pids": [7]}), {}),
        (json.dumps({"culprits": [1]}), {}),
        ("[1]", {}),
        ("{", {}),
    ):
        (tmp_path / "verdict.json").write_text(content)
        assert convicted_pids(tmp_path) == found
    assert convicted_pids(tmp_path / "none") == {}


@pytest.mark.parametrize(("seconds", "interval", "period"), [(60.0, 1.0, 6.0), (5.0, 0.5, 0.5), (10.0, 1.0, 1.0)])
def test_a_rank_is_heard_ten_times_in_what_it_may_take_and_on_its_host_at_least_once_a_second(
    tmp_path: Path, seconds: float, interval: float, period: float
) -> None:
    hang = watch(tmp_path, rank=1, pids={0: 7}, seconds=seconds)
    # Four beats missed on its host, and elsewhere.
    assert (hang._ranks.patience(0), hang._ranks.patience(2)) == (4 * interval, 4 * period)
    assert hang._interval == interval


def test_a_rank_that_takes_just_as_long_as_it_may_is_not_held_up(tmp_path: Path, clock: SimpleNamespace) -> None:
    hang = watch(tmp_path)
    hang.at(STEP)
    for count, (seconds, found) in enumerate(((0.0, []), (SECONDS, []), (0.1, [(1, "stuck in a step")])), 1):
        move(clock, seconds)
        hang._ranks.tell(hang._beat())
        beat(tmp_path, 1, count, progress=0)
        beat(tmp_path, 2, count, progress=3)
        assert named(hang) == found


def test_a_host_whose_first_rank_is_not_the_first_of_all_judges_that_host_alone(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    hang = watch(tmp_path, rank=2)
    hang.at(STEP)
    beat(tmp_path, 0)
    assert named(hang) == []
    for count in range(2, 5):
        move(clock, SECONDS / 2)
        beat(tmp_path, 0, count)
        hang._ranks.tell(hang._beat())
        # It is held up itself, and hears nothing of rank 1: who holds it up is for rank 0 to tell.
        assert named(hang) == []
    move(clock, SECONDS + 1)
    assert named(hang) == [(0, "silent for 9 s")]


def test_the_next_rank_of_a_host_watches_where_the_first_is_silent(tmp_path: Path, clock: SimpleNamespace) -> None:
    hang = watch(tmp_path, rank=1, pids={0: 7})
    hang.at(BATCH)
    post(hang, 0)
    named(hang)
    assert not hang._ranks.is_watcher
    # As long as rank 0 beats, it hears what other hosts tell: this rank need not.
    move(clock, 0.9 * SECONDS)
    post(hang, 0, count=2)
    named(hang)
    move(clock, 0.9 * SECONDS)
    hang.at(STEP)
    assert named(hang) == []
    assert hang._ranks.is_watcher
    beat(tmp_path, 2)
    move(clock, 0.2 * SECONDS)
    hang.at(STEP)
    assert named(hang) == [(0, "silent for 9 s")], "and rank 2, of which it had heard nothing, has time to tell"
    assert {each.rank for each in read(path_of(tmp_path, 0))} == {0, 1}, "it writes for its host"


def test_a_watch_lasts_as_long_as_its_context_and_leaves_word_that_it_went(tmp_path: Path) -> None:
    folder = tmp_path / "watch"
    folder.mkdir()
    (folder / "verdict.json").write_text("{}")
    with watch_alone(folder) as hang:
        assert not (folder / "verdict.json").exists(), "that of the attempt before"
        assert hang._thread.is_alive()
        assert hang._thread.daemon, "it keeps no process that ends"
    assert not hang._thread.is_alive()
    assert [each.phase for each in read(path_of(folder, 0))] == [LEFT]


def watch_alone(folder: Path) -> HangWatch:
    return HangWatch(folder, World(0, 1, 0, torch.device("cpu")), 20.0)


@pytest.mark.parametrize("error", [ValueError("bad input"), SystemExit(2), RuntimeError("connection closed by peer")])
def test_bad_input_is_told_by_its_own_words_and_a_broken_exchange_by_who_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    gone = forked(lambda: 0)
    os.waitpid(gone, 0)
    hang = watch(tmp_path, seconds=20.0, pids={1: gone, 2: os.getpid()})
    hang._thread.start()
    hang.__exit__(type(error), error, None)
    phases = [each.phase for each in read(path_of(tmp_path, 0)) if each.rank == 0]
    if isinstance(error, ValueError | SystemExit):
        assert (phases, capsys.readouterr().err) == ([LEFT], "")
    else:
        assert LEFT not in phases
        assert capsys.readouterr().err == f"rank 0: connection closed by peer; gone: rank 1 (process {gone})\n"


def test_a_broken_exchange_after_a_verdict_is_its_doing_and_ends_this_rank_with_the_stacks_of_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hang = watch(tmp_path, seconds=20.0, pids={1: os.getpid()})
    ended_by: list[BaseException | None] = []
    hang._end = ended_by.append  # type: ignore[method-assign]
    # A watch that has not looked at the verdict yet.
    hang._thread = SimpleNamespace(is_alive=lambda: True, join=lambda: None)  # type: ignore[assignment]
    (tmp_path / "verdict.json").write_text("{}")
    error = RuntimeError("connection closed \x1b by peer")
    hang.__exit__(RuntimeError, error, None)
    assert ended_by == [error]
    path = tmp_path / "verdict.json"
    assert capsys.readouterr().err == rf"rank 0: connection closed \x1b by peer; the job ends, see {path}" + "\n"


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_without_a_limit_or_a_folder_nothing_is_watched(tmp_path: Path, seconds: float) -> None:
    folder = tmp_path / "watch" if not seconds else None
    with HangWatch(folder, World(0, 1, 0, torch.device("cpu")), seconds) as hang:
        assert not hang._thread.is_alive()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], object]], int]]:
    """Start a process that does some work; it is gone after the test. Nobody's patience is long."""
    monkeypatch.setattr("trainer.health.job_end._GRACE_SECONDS", 0.2)
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
    hang = watch(tmp_path, rank=rank, seconds=0.5, pids=pids)
    for other, pid in pids.items():
        post(hang, other, pid=pid, end="wrote its stacks")
    (tmp_path / "verdict.json").write_text(text(Verdict(culprits, (1,) * len(culprits), "", 0)))
    mine = children(hang._run)
    assert ended(mine) == 1
    assert "most recent call first" in (tmp_path / f"stacks_rank_{rank}.txt").read_text()
    assert [ended(pid, 60.0 if ends_others else 0.0) for pid in pids.values()] == [-9 if ends_others else None] * 2


def test_only_ranks_of_this_host_that_have_not_left_are_ended(tmp_path: Path, children: Start) -> None:
    """By chance other processes of this host have the ids of a rank elsewhere and of one that is gone."""
    elsewhere, gone, peer = (children(signal.pause) for _ in range(3))
    hang = watch(tmp_path, world_size=4, seconds=0.1, pids={2: gone, 3: peer})
    beat(tmp_path, 1, host="elsewhere", pid=elsewhere)
    post(hang, 2, pid=gone, phase=LEFT)
    post(hang, 3, pid=peer)
    mine = children(hang._run)
    assert (ended(mine), ended(peer)) == (1, -signal.SIGKILL)
    assert (ended(elsewhere, 0.0), ended(gone, 0.0)) == (None, None)
    assert set(convicted_pids(tmp_path)) <= {1, 3}


def test_a_stopped_rank_is_woken_to_write_its_stacks(tmp_path: Path, children: Start) -> None:
    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        (tmp_path / "stacks_rank_1.txt").write_text("woken")

    peer = children(stopped)
    os.waitpid(peer, os.WUNTRACED)
    hang = watch(tmp_path, world_size=2, seconds=0.1, pids={1: peer})
    post(hang, 1, pid=peer)
    mine = children(hang._run)
    assert (ended(mine), ended(peer)) == (1, 0)
    assert (tmp_path / "stacks_rank_1.txt").read_text() == "woken"


def test_a_verdict_that_a_full_disk_does_not_take_ends_this_rank_all_the_same(
    tmp_path: Path, children: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "watch"
    folder.mkdir()
    hang = watch(folder, world_size=2, seconds=0.1)
    beat(folder, 1, pid=77)
    named(hang)
    shutil.rmtree(folder)
    assert ended(children(hang._run)) == 1
    assert "rank 1 (host elsewhere, process 77): silent for" in (told := capfd.readouterr().err)
    assert "(not written: No such file or directory); the job ends" in told


def test_ranks_that_leave_at_once_are_both_told_to_have_left(tmp_path: Path) -> None:
    first = watch(tmp_path, rank=0, world_size=2, pids={1: 7})
    second = watch(tmp_path, rank=1, world_size=2, pids={0: 7})
    second._beats.node = Node(1, (0, 0), first._ranks.node.board)  # type: ignore[union-attr]
    written = first._ranks._write

    def late() -> None:
        first._ranks._write = written  # type: ignore[method-assign]
        # Rank 1 leaves while rank 0 is about to write what it saw before.
        seen = first._ranks.here()
        leave(second)
        write(path_of(tmp_path, 0), seen)

    first._ranks._write = late  # type: ignore[method-assign]
    leave(first)
    assert [each.phase for each in read(path_of(tmp_path, 0))] == [LEFT, LEFT]


def leave(hang: HangWatch) -> None:
    hang._phase, hang._count = LEFT, sys.maxsize
    hang._ranks.leave(hang._beat())
