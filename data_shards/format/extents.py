"""Extents: pieces of a shard of about 8 MB that begin and end with a sample, the unit in which storage is read.

A disk that is asked for single samples gives a third of its speed, an object store a hundredth. An extent is read and
its checksum taken in one go, without the interpreter's lock; its samples are then views into it that cost nothing.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c
import numpy as np

from data_shards.format.buffers import BufferPool

# From a cold disk, reads of one sample reach a third of the speed of reads in order. From 4 to 8 MB on they are as
# fast; more would only take memory, since each lane holds several.
EXTENT_BYTES = 8 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Extent:
    """Bytes begin to begin + len(content) of a shard."""

    begin: int
    content: memoryview
    crc: int
    """CRC-32C of the content."""


def cuts(spans: np.ndarray, extent_bytes: int = EXTENT_BYTES) -> np.ndarray:
    """Return the first sample of every extent, and the number of samples at the end, for samples at these (S, 2) spans.

    A short rest belongs to the extent before it.
    """
    begins = spans[:, 0] - spans[0, 0]
    first = np.flatnonzero(np.diff(begins // extent_bytes, prepend=-1))
    # At the end of a shard a read of a few samples would cost as much of a seek as a whole extent.
    if len(first) > 1 and spans[-1, 1] - spans[first[-1], 0] < extent_bytes // 2:
        first = first[:-1]
    return np.append(first, len(spans))


def read(file: BinaryIO, begin: int, end: int, pool: BufferPool) -> Extent:
    """Return bytes begin to end of an unbuffered file; EOFError where it is shorter."""
    content = pool.take(end - begin)
    file.seek(begin)
    done = 0
    # In one go: a thread that gives the interpreter's lock back between pieces may wait 5 ms for it each time.
    # A loop all the same: one call reads at most 2 GiB on Linux, and a network file system may give less.
    while done < len(content):
        count = file.readinto(content[done:].data)  # type: ignore[attr-defined] # raw files have it
        if not count:
            raise EOFError(f"it ends at byte {begin + done}, a sample at byte {end}")
        done += count
    return Extent(begin, content.data, google_crc32c.value(content))


class ExtentCache:
    """The extents that were read last, up to a number of bytes; each is read by the thread that comes first.

    The oldest goes first. Lanes advance at one pace, so what was begun first is finished first, and a look-up needs
    neither a lock nor a note of when it was made.
    """

    def __init__(self, live_bytes: int) -> None:
        self.num_read = 0
        """Extents read so far; one that is read again after it was dropped counts again."""
        self.held_bytes = 0
        self.held: dict[tuple[int, int], Extent] = {}
        """Extents by (shard, number), oldest first."""
        self._live_bytes = live_bytes
        # A future for each read under way. Without it, threads whose batches share an extent would all read it.
        self._coming: dict[tuple[int, int], Future[Extent]] = {}
        self._lock = threading.Lock()

    def is_known(self, place: tuple[int, int]) -> bool:
        """Whether the extent at a place is held or coming."""
        return place in self.held or place in self._coming

    def fetch(self, place: tuple[int, int], read: Callable[[], Extent]) -> Extent:
        """Return the extent at a place, read with `read` by one of the threads that ask for it at the same time."""
        with self._lock:
            # Again under the lock: between the caller's look and this one another thread may have finished the read.
            if (extent := self.held.get(place)) is not None:
                return extent
            if (future := self._coming.get(place)) is None:
                mine = self._coming[place] = Future()
        if future is not None:
            return future.result()
        try:
            extent = read()
        # Also for what is no Exception: threads that wait for this future would wait for ever. The place is given up
        # first, so that the next touch reads again instead of meeting the same error.
        except BaseException as error:
            with self._lock:
                del self._coming[place]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._coming[place]
            self._hold(place, extent)
        mine.set_result(extent)
        return extent

    def clear(self) -> None:
        """Drop all extents."""
        with self._lock:
            self.held.clear()
            self.held_bytes = 0

    def _hold(self, place: tuple[int, int], extent: Extent) -> None:
        self.held[place] = extent
        self.num_read += 1
        self.held_bytes += len(extent.content)
        # The newest stays, however large it is: whoever read it has not used it yet.
        while self.held_bytes > self._live_bytes and len(self.held) > 1:
            self.held_bytes -= len(self.held.pop(next(iter(self.held))).content)
