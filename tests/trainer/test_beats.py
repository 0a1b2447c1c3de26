"""A rank is heard over memory on its host, and over one small file a host between hosts."""

import errno
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audit import listening
from threads import CPU, on_gloo

from trainer.distributed.board import SLOT_BYTES, Board
from trainer.distributed.node import Node
from trainer.distributed.world import World
from trainer.health.hang import STEP, HangWatch
from trainer.health.heartbeats import Beat, Beats, path_of, read


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """The paths that this process opens, lists or renames."""
    opened: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir", "os.rename", "os.link"):
            opened.append(str(arguments[0]))

    with listening(note):
        yield opened


def test_a_rank_is_overdue_after_its_limit_and_not_at_it() -> None:
    # A beat that says nothing of time is of a rank that has had none, and may take none.
    beat = Beat(0, "n", 1, 0, 0, STEP)
    assert not beat.is_overdue
    assert replace(beat, at_seconds=0.5).is_overdue
    assert not replace(beat, limit_seconds=0.5).is_overdue
    assert [replace(beat, limit_seconds=2.0, at_seconds=seconds).is_overdue for seconds in (2.0, 2.1)] == [False, True]


def test_the_watcher_of_a_host_alone_asks_other_hosts_and_only_when_it_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("trainer.health.heartbeats.time.monotonic", lambda: now[0])
    board = Board.create(2)
    assert board is not None
    first = [Beat(rank, "n", rank, 0, 0, STEP) for rank in range(2)]
    beats = [Beats(tmp_path, Node(rank, (0, 0), board), first, interval=1.0, period=6.0) for rank in range(2)]
    told = []
    for second in range(8):
        now[0] = 1000.0 + second
        for each in beats:
            each.tell(Beat(each.node.rank, "n", 1, second, second, STEP))
        told.append([each.listen() for each in beats])
    board.close_to_others()
    assert told == [[second in (0, 6), False] for second in range(8)]


def test_a_beat_of_a_host_and_an_activity_with_the_longest_of_names_is_told(tmp_path: Path) -> None:
    beat = Beat(0, "n" * SLOT_BYTES, 1, 0, 0, "p" * SLOT_BYTES)
    beats = Beats(tmp_path, Node(0, (0,), Board.alone()), [beat], interval=1.0, period=6.0)
    beats.tell(beat)
    [told] = beats.node.get().values()
    assert json.loads(told) == {**vars(beat), "host": "n" * 64, "phase": "p" * 64}


def test_ranks_of_one_host_cost_the_shared_disk_one_write_at_a_time(tmp_path: Path, calls: list[str]) -> None:
    world_size, beats = 8, 10
    seconds = 2.0
    before = len(calls)

    def watched(world: World) -> int:
        with HangWatch(tmp_path / "watch", world, seconds):
            threading.Event().wait(beats * seconds / 10)
        return 0

    on_gloo(world_size, watched)
    there = [path for path in calls[before:] if str(tmp_path) in path]
    # As each rank leaves it writes a last time, and may have to do so again; 1 is made before a watcher is known.
    assert len(there) <= beats + 4 * world_size, "each rank opened the file of each rank at each beat"
    assert not [path for path in calls[before:] if "perceiver-board" in path], "a killed rank would leave it behind"


@pytest.mark.parametrize(("hosts", "ranks_a_host"), [(4, 6), (16, 1)])
def test_a_minute_of_heartbeats_is_a_few_calls_a_rank(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch, hosts: int, ranks_a_host: int
) -> None:
    now = [1000.0]
    monkeypatch.setattr("trainer.health.heartbeats.time.monotonic", lambda: now[0])
    world_size = hosts * ranks_a_host
    first_of = tuple(rank - rank % ranks_a_host for rank in range(world_size))
    boards = {first: Board.create(ranks_a_host) for first in set(first_of)}
    first = [Beat(rank, f"n{first_of[rank]}", rank, 0, 0, STEP) for rank in range(world_size)]
    ranks = []
    for rank in range(world_size):
        board = boards[first_of[rank]] or Board.alone()
        ranks.append(Beats(tmp_path, Node(rank, first_of, board), first, interval=1.0, period=6.0))
    for made in filter(None, boards.values()):
        made.close_to_others()
    before = len(calls)
    for second in range(60):
        for each in ranks:
            each.tell(Beat(each.node.rank, "n", 1, second, second, STEP))
        for each in ranks:
            each.listen()
        now[0] += 1.0
    there = [path for path in calls[before:] if str(tmp_path) in path]
    # Each host writes its file, reads the first host's, and the first host reads it: ten times a minute.
    assert len(there) <= 30 * hosts
    # And rank 0 has heard everyone lately.
    assert max(ranks[0].silences().values()) <= 8.0
    assert set(ranks[0].silences()) == set(range(1, world_size))
    assert {beat.rank for beat in read(path_of(tmp_path, 0))} == set(range(ranks_a_host))


def test_a_rank_of_another_host_that_stops_is_heard_no_more_by_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("trainer.health.heartbeats.time.monotonic", lambda: now[0])
    first = [Beat(rank, "n", rank, 0, 0, STEP) for rank in range(4)]
    board = Board.create(2)
    assert board is not None
    board.close_to_others()
    mine = Beats(tmp_path, Node(0, (0, 1, 2, 2), Board.alone()), first, interval=1.0, period=6.0)
    others = [Beats(tmp_path, Node(rank, (0, 1, 2, 2), board), first, interval=1.0, period=6.0) for rank in (2, 3)]
    for second in range(70):
        for each in others[1:] if second >= 30 else others:
            each.tell(Beat(each.node.rank, "n", 1, second, 0, STEP))
            each.listen()
        mine.tell(Beat(0, "n", 1, second, 0, STEP))
        mine.listen()
        now[0] += 1.0
    # Rank 2 wrote for its host; when it stopped rank 3 took that over, and tells that rank 2 has not been heard since.
    assert 34 <= mine.silences()[2] <= 47
    assert mine.silences()[3] <= 8


def test_a_slot_gives_what_was_put_there_and_nothing_half(tmp_path: Path) -> None:
    board = Board.create(3)
    assert board is not None
    path = board.path
    other = Board.open(path)
    board.close_to_others()
    assert other is not None
    assert [other.get(slot) for slot in range(3)] == [b"", b"", b""]
    board.put(1, b"a longer one")
    board.put(2, b"x" * (SLOT_BYTES - 8))
    board.put(1, b"short")
    assert [other.get(slot) for slot in range(3)] == [b"", b"short", b"x" * (SLOT_BYTES - 8)]
    board._memory[SLOT_BYTES + 9 : SLOT_BYTES + 10] = b"?"
    assert other.get(1) == b""
    assert Board.open(tmp_path / "missing") is None


def test_a_slot_whose_length_is_damaged_gives_nothing_and_no_other_slots_content() -> None:
    board = Board.create(2)
    assert board is not None
    board.close_to_others()
    board.put(0, b"here")
    # Longer than a slot, and shorter than what was put.
    for length in (SLOT_BYTES * 3, SLOT_BYTES - 7, 3):
        board._memory[:4] = length.to_bytes(4, "little")
        assert board.get(0) == b""
    with pytest.raises(AssertionError):
        board.put(0, b"x" * (SLOT_BYTES - 7))
    assert board.get(1) == b""


def test_without_memory_for_it_there_is_no_board_and_no_file_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = [os.memfd_create("board")]
    monkeypatch.setattr(os, "memfd_create", lambda _: made[0])
    monkeypatch.setattr(os, "write", full)
    assert Board.create(2) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0])
    monkeypatch.setattr(os, "memfd_create", full)
    assert Board.create(2) is None


def test_a_rank_is_first_of_its_host_or_another_one_is() -> None:
    node = Node(3, (0, 1, 0, 1, 4), Board.alone())
    assert (node.ranks, node.firsts, node.first, node.is_head) == ((1, 3), (0, 1, 4), 1, False)
    assert Node(2, (0, 1, 0, 1, 4), Board.alone()).is_head
    # A set of these three gives 8 before 3.
    assert Node(0, (0, 0, 0, 3, 3, 3, 3, 3, 8), Board.alone()).firsts == (0, 3, 8)


def test_ranks_that_do_not_share_memory_are_hosts_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.distributed.node.Board.open", lambda _: None)
    assert on_gloo(3, lambda world: Node.join(world).first_of) == [(0, 1, 2)] * 3


def test_ranks_are_of_one_host_by_its_name_and_by_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [("n", "a", "p"), ("n", "b", "p"), ("n", "a", "q"), ("n", "a", "p")]
    known = threading.local()
    monkeypatch.setattr("trainer.distributed.node._host", lambda: hosts[known.rank])

    def join(world: World) -> tuple[tuple[int, ...], tuple[int, ...]]:
        known.rank = world.rank
        node = Node.join(world)
        node.put(b"%d" % world.rank)
        world.barrier()
        return node.first_of, tuple(node.get())

    first_of = (0, 1, 2, 0)
    assert on_gloo(4, join) == [(first_of, here) for here in ((0, 3), (1,), (2,), (0, 3))]


def test_a_process_alone_shares_its_board_with_nobody() -> None:
    node = Node.join(World(0, 1, 0, CPU))
    node.put(b"here")
    assert (node.get(), node.is_head, node.ranks) == ({0: b"here"}, True, (0,))


def test_a_full_disk_takes_the_beats_of_a_host_that_it_has_had_before(tmp_path: Path) -> None:
    path = tmp_path / "node_0.json"
    beats = Beats(tmp_path, Node(0, (0,), Board.alone()), [Beat(0, "n", 1, 0, 0, STEP)], interval=1.0, period=1.0)
    beats.listen()
    inode, size = path.stat().st_ino, path.stat().st_size
    assert not path.stat().st_mode & 0o111, "it is no program"
    beats.tell(Beat(0, "n", 1, 5, 0, STEP))
    beats._next_exchange = 0.0
    beats.listen()
    assert read(path)[0].count == 5
    assert (path.stat().st_ino, path.stat().st_size) == (inode, size), "no block is asked for, no name is made"
    os.truncate(path, size // 2)
    assert read(path) == []
