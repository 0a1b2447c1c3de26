"""The ranks of a host hear each other over memory, and one of them tells the disk that all of them live."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit import listening

from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.heartbeat import Heartbeat
from launch.lifecycle.run_folder import RunFolder
from trainer.distributed.board import Board
from trainer.distributed.node import Node


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """The names of files that this process opens or touches."""
    written: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.utime"):
            written.append(Path(str(arguments[0])).name)

    with listening(note):
        yield written


class Ranks:
    """The heartbeats of a host's ranks, given by hand."""

    def __init__(self, folder: RunFolder, num_ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.newest, self.ended, self.looks = 1000.0, True, 0, 0
        monkeypatch.setattr("launch.lifecycle.heartbeat.time.monotonic", lambda: self.now)
        monkeypatch.setattr("launch.lifecycle.heartbeat.threading.Thread.start", lambda _: None)
        made = Board.create(num_ranks)
        assert made is not None
        made.close_to_others()
        attempts.begin(folder, job_id="", nodes=["n1"])
        self.beats = []
        for rank in range(num_ranks):
            record = attempts.write_rank(folder, 1, RankRecord(rank, "n1", 100 + rank))
            os.utime(record, (1000.0, 1000.0))
            beat = Heartbeat(record, 2.0, self.looked, lambda: None)
            beat.share(Node(rank, (0,) * num_ranks, made))
            self.beats.append(beat)

    def looked(self) -> bool:
        self.looks += 1
        return self.newest

    def give(self, seconds: float, *, silent: tuple[int, ...] = ()) -> list[bool]:
        """Give the beats of so many seconds; return what each rank found at last, whether it may go on."""
        found = [True] * len(self.beats)
        for _ in range(int(seconds / 0.5)):
            for rank, beat in enumerate(self.beats):
                # Who found that it is over has ended.
                if rank not in silent and found[rank]:
                    found[rank] = beat._alone() if beat._node is None else beat._among(beat._node)
            self.now += 0.5
        return found


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.create()
    return made


@pytest.fixture
def start(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Ranks]:
    return lambda num_ranks: Ranks(folder, num_ranks, monkeypatch)


def test_one_rank_of_a_host_writes_and_looks_for_all_of_them(
    folder: RunFolder, start: Callable[[int], Ranks], calls: list[str]
) -> None:
    ranks = start(8)
    calls.clear()
    assert ranks.give(60.0) == [True] * 8
    # Each rank touched its file and looked for a later attempt every two seconds: 240 calls of each kind.
    assert calls == ["alive_0.json"] * 40
    assert ranks.looks == 40
    seen = [record.seen_at for record in attempts.ranks(folder, 1)]
    assert len(seen) == 8
    assert all(time.time() - 60 < at for at in seen), "later than their own files were touched"
    assert attempts.not_seen(folder, 1) == []


def test_a_rank_that_was_killed_is_the_one_that_was_not_seen_lately_and_its_place_is_taken(
    folder: RunFolder, start: Callable[[int], Ranks]
) -> None:
    ranks = start(3)
    ranks.give(10.0)
    ranks.give(40.0, silent=(0,))
    first, *others = attempts.ranks(folder, 1)
    assert [record.rank for record in attempts.not_seen(folder, 1)] == [0]
    assert all(38 <= other.seen_at - first.seen_at <= 42 for other in others)
    assert attempts.is_beating(folder, 1)


def test_a_rank_that_left_is_known_by_its_own_file(folder: RunFolder, start: Callable[[int], Ranks]) -> None:
    ranks = start(2)
    ranks.give(10.0)
    left = attempts.write_rank(folder, 1, RankRecord(1, "n1", 101, status=1))
    os.utime(left, (2000.0, 2000.0))
    assert attempts.ranks(folder, 1)[1].seen_at == 2000.0


def test_a_later_attempt_ends_all_ranks_of_a_host_by_one_look(start: Callable[[int], Ranks]) -> None:
    ranks = start(4)
    ranks.give(10.0)
    ranks.newest = False
    assert ranks.give(2.5) == [False] * 4


def test_a_damaged_word_on_who_lives_is_none(folder: RunFolder, start: Callable[[int], Ranks]) -> None:
    ranks = start(2)
    ranks.give(10.0)
    path = attempts.attempt_folder(folder, 1) / "alive_0.json"
    assert set(json.loads(path.read_text())) == {"0", "1"}
    for damaged in (b"", b"{", b"[]", b'{"0": []}', b'{"x": "1"}', b"\xff", b'{"0": "a"}', b'{"7": "0.0"}'):
        path.write_bytes(damaged)
        assert [record.seen_at for record in attempts.ranks(folder, 1)] == [1000.0, 1000.0]


def test_a_full_disk_takes_the_next_word_on_who_lives(folder: RunFolder, start: Callable[[int], Ranks]) -> None:
    ranks = start(2)
    ranks.give(10.0)
    path = attempts.attempt_folder(folder, 1) / "alive_0.json"
    before = path.stat()
    ranks.give(500.0, silent=(1,))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert float(json.loads(path.read_text())["1"]) > 490


@pytest.mark.parametrize("is_over", [True, False], ids=["ended", "superseded"])
def test_a_rank_whose_attempt_ended_while_it_looked_is_not_ended_by_what_follows(
    folder: RunFolder, is_over: bool
) -> None:
    record = attempts.write_rank(folder, attempts.begin(folder, job_id="", nodes=["n1"]).number, RankRecord(0, "n1", 1))
    looks, may_see, ended = threading.Event(), threading.Event(), threading.Event()

    def sees_a_later_attempt() -> bool:
        looks.set()
        return not may_see.wait(60)

    beat = Heartbeat(record, 0.1, sees_a_later_attempt, ended.set)
    [watch] = [thread for thread in threading.enumerate() if thread.name == "fence" and thread.is_alive()][-1:]
    assert looks.wait(60)
    if is_over:
        beat.set()
    may_see.set()
    watch.join(60)
    assert ended.is_set() is not is_over


def test_a_rank_alone_on_its_host_touches_its_own_record(start: Callable[[int], Ranks], calls: list[str]) -> None:
    ranks = start(1)
    calls.clear()
    assert ranks.give(2.0) == [True]
    assert calls == ["rank_0.json"] * 4
    ranks.newest = False
    assert ranks.give(0.5) == [False]


def test_the_place_of_a_silent_rank_is_taken_after_four_of_its_beats(
    folder: RunFolder, start: Callable[[int], Ranks], calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks, close, closed = start(2), os.close, list[int]()
    ranks.give(6.0)
    # A file that is no program, for whoever may read it.
    assert (attempts.attempt_folder(folder, 1) / "alive_0.json").stat().st_mode & 0o711 == 0o600
    calls.clear()
    # Heard last half a second before, it is silent for 8 s after 7.5 s.
    ranks.give(7.5, silent=(0,))
    assert calls == []
    monkeypatch.setattr(os, "close", lambda descriptor: closed.append(descriptor) or close(descriptor))
    ranks.give(3.0, silent=(0,))
    assert calls == ["alive_0.json"] * len(closed) == ["alive_0.json"] * 2


@pytest.mark.parametrize(("num_ranks", "seconds"), [(1, 2.0), (2, 0.5)])
def test_among_others_a_rank_gives_four_beats_in_the_time_of_one(
    start: Callable[[int], Ranks], monkeypatch: pytest.MonkeyPatch, num_ranks: int, seconds: float
) -> None:
    beat, waits = start(num_ranks).beats[0], list[float]()
    monkeypatch.setattr(beat, "wait", lambda pause: waits.append(pause) or len(waits) == 3)
    beat._run()
    assert waits == [seconds] * 3
