"""Beats: the heartbeats of all ranks, in shared memory on a host and in one small file per host between hosts.

RUN/watch/node_8.json   the newest beats of the ranks of the host whose first rank is 8

One rank a host, the watcher, writes that file and reads others': the watcher of the first host those of all hosts,
the others that of the first. Files and not sockets, because a stopped process answers no socket, and because they are
there to read afterwards. They are written in place, so that a disk that is full takes them too.
Ten beats of 8 ranks on one host took 42 calls for files; with a file of each rank's own they were 722.
"""

import json
import os
import time
import zlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.distributed.node import Node

MISSED_BEATS = 4
"""The number of missed heartbeats after which a rank counts as silent."""
LEFT = "left"
_LONGEST_WORD = 64


@dataclass(frozen=True)
class Beat:
    """The last heartbeat of a rank."""

    rank: int
    host: str
    pid: int
    count: int
    """Rises with every heartbeat: clocks of hosts are not compared."""
    progress: int
    """Rises with every step and every change of phase."""
    phase: str
    """The activity of the main thread; LEFT after an orderly exit."""
    limit_seconds: float = 0.0
    """The time limit of the activity. A rank that waits for this one has the same limit."""
    at_seconds: float = 0.0
    """The time since the activity began."""
    end: str = ""
    """The progress of this rank in ending the job, once it knows a verdict."""

    @property
    def is_overdue(self) -> bool:
        """Whether the main thread is at what it is at for longer than it may."""
        return self.at_seconds > self.limit_seconds


class Beats:
    """The beats of the ranks that this one listens to. One thread uses it."""

    def __init__(self, folder: Path, node: Node, first: Sequence[Beat], *, interval: float, period: float) -> None:
        """`first` has a beat of every rank; beats come every `interval` seconds, files every `period`."""
        self._folder, self.node = folder, node
        self._interval, self._period = interval, period
        now = time.monotonic()
        self.newest = {beat.rank: (beat, now) for beat in first}
        """The newest beat of each rank, and when this rank first heard it."""
        self.is_watcher = False
        """Whether this rank writes and reads for its host: the first one there that is not silent."""
        self._next_exchange = now
        self._written: tuple[bool, ...] = ()
        self._posted: dict[int, bytes] = {}

    def tell(self, beat: Beat) -> None:
        """Tell a beat of this rank."""
        # A slot has 1 KiB, and the name of a host or a phase may have any length.
        self.node.put(_bytes(replace(beat, host=beat.host[:_LONGEST_WORD], phase=beat.phase[:_LONGEST_WORD])))
        self.newest[beat.rank] = (beat, time.monotonic())

    def here(self) -> list[Beat]:
        """Return the newest beats of the ranks of this host, this one among them."""
        for rank, content in self.node.get().items():
            # Parsed where it has changed; this is asked for every second.
            if content != self._posted.get(rank):
                self._posted[rank] = content
                self._hear(_beats(b"[%s]" % content))
        return [self.newest[rank][0] for rank in self.node.ranks if rank in self.newest]

    def present(self) -> list[Beat]:
        """Return the newest beats of the ranks of this host that have not left, this one among them."""
        return [beat for beat in self.here() if beat.phase != LEFT]

    def listen(self) -> bool:
        """Hear this host and, as its watcher, the others when it is time; return whether they were asked."""
        here = self.here()
        now = time.monotonic()
        awake = (rank for rank in self.node.ranks if rank == self.node.rank or not self._is_silent(rank, now))
        was_watcher, self.is_watcher = self.is_watcher, next(awake) == self.node.rank
        if self.is_watcher and not was_watcher:
            self.forgive(set(self.newest) - set(self.node.ranks))  # nobody told this rank of other hosts until now
        # A change is written at once: by these files the first host sees that ranks elsewhere are held up, and judges.
        overdue = tuple(beat.is_overdue for beat in here)
        if not self.is_watcher or (now < self._next_exchange and overdue == self._written):
            return False
        self._next_exchange, self._written = now + self._period, overdue
        self._write()
        for first in self.node.firsts if self.node.is_head else self.node.firsts[:1]:
            if first != self.node.first:
                self._hear(read(path_of(self._folder, first)))
        return True

    def silences(self) -> dict[int, float]:
        """Return for how long each rank that this one listens to was not heard, but for those that left."""
        now = time.monotonic()
        heard = {rank: self.newest[rank] for rank in self.listens_to() if rank in self.newest}
        return {rank: now - since for rank, (beat, since) in heard.items() if beat.phase != LEFT}

    def listens_to(self) -> set[int]:
        """Return the other ranks whose silence this rank can notice."""
        node = self.node
        known = set(self.newest) if node.is_head else {*node.ranks, *node.of(node.firsts[0])}
        return known - {node.rank}

    def patience(self, rank: int) -> float:
        """Return for how long a rank may not be heard before it is called silent where somebody is held up."""
        return MISSED_BEATS * (self._interval if rank in self.node.ranks else self._period)

    def leave(self, beat: Beat) -> None:
        """Send the last heartbeat of this rank to other hosts too: no other rank may be left here to do so."""
        self.tell(beat)
        told: list[Beat] = []
        # Two that leave at once may write in the wrong order; the later one then finds that it has to write again.
        while told != (told := self.here()):
            self._write()

    def forgive(self, ranks: Collection[int]) -> None:
        """Count the silence of these ranks from now on."""
        now = time.monotonic()
        self.newest |= {rank: (self.newest[rank][0], now) for rank in ranks}

    def _is_silent(self, rank: int, now: float) -> bool:
        beat, since = self.newest.get(rank, (None, now))
        return beat is None or beat.phase == LEFT or now - since > self.patience(rank)

    def _hear(self, beats: Iterable[Beat]) -> None:
        now = time.monotonic()
        for beat in beats:
            known = self.newest.get(beat.rank)
            if known is None or (known[0].count, known[0].end) != (beat.count, beat.end):
                self.newest[beat.rank] = (beat, now)

    def _write(self) -> None:
        with suppress(OSError):  # a folder that is away for a moment must not end the run; silence would
            write(path_of(self._folder, self.node.first), self.here())


def path_of(folder: Path, first: int) -> Path:
    """Return the file of the host whose first rank this is."""
    return folder / f"node_{first}.json"


def write(path: Path, beats: Iterable[Beat]) -> None:
    """Write beats in place, with their checksum: whoever reads half of them knows it."""
    content = b"[%s]" % b", ".join(map(_bytes, beats))
    # Not truncated: a full disk would take the old bytes away and not give the new ones back.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # A shorter one leaves the end of a longer one behind it, which the length tells from it.
        os.pwrite(descriptor, b"%08x %08d %s\n" % (zlib.crc32(content), len(content), content), 0)
    finally:
        os.close(descriptor)


def read(path: Path) -> list[Beat]:
    """Return the beats in a file; none where it is missing, damaged, or being written just now."""
    with suppress(OSError, ValueError):
        crc, length, content = path.read_bytes().split(b" ", 2)
        content = content[: int(length)]
        if zlib.crc32(content) == int(crc, 16):
            return _beats(content)
    return []


def _bytes(beat: Beat) -> bytes:
    return json.dumps(vars(beat)).encode()


def _beats(content: bytes) -> list[Beat]:
    # Not by the types of their fields, as other files: the checksum says that it is what a rank of this run wrote, and
    # a thread that reads every second what all ranks of a host tell must be cheap.
    with suppress(ValueError, TypeError):
        return [Beat(**fields) for fields in json.loads(content)]
    return []
