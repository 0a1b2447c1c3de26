"""Extents: a shard in pieces of about 8 MB that begin and end with a sample.

Storage gives whole pieces in one request at nearly its full speed; a request a sample takes a third of it from a disk
and a hundredth from an object store. A small shard is one extent.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

EXTENT_BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class Extent:
    """Bytes begin to begin + len(content) of a shard."""

    begin: int
    content: memoryview


def cuts(spans: np.ndarray, extent_bytes: int = EXTENT_BYTES) -> np.ndarray:
    """Return the first sample of every extent, and the number of samples at the end, of a shard with these spans."""
    begins = spans[:, 0] - spans[0, 0]
    first = np.flatnonzero(np.diff(begins // extent_bytes, prepend=-1))
    # A short rest is read with the piece before it.
    if len(first) > 1 and spans[-1, 1] - spans[first[-1], 0] < extent_bytes // 2:
        first = first[:-1]
    return np.append(first, len(spans))


class ExtentCache:
    """The extents that were touched last, up to a number of bytes; each is read by the thread that comes first."""

    def __init__(self, live_bytes: int) -> None:
        self.num_read = 0
        """Extents read so far; one that comes again after it was dropped counts again."""
        self._live_bytes = live_bytes
        self._held_bytes = 0
        self._extents: OrderedDict[tuple[int, int], Future[Extent]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, place: tuple[int, int], read: Callable[[], Extent]) -> Extent:
        """Return the extent at (shard, number), read with `read` if it is not held."""
        with self._lock:
            future = self._extents.get(place)
            if future is not None:
                self._extents.move_to_end(place)
            else:
                mine = self._extents[place] = Future()
        if future is not None:
            return future.result()
        try:
            extent = read()
        except BaseException as error:
            with self._lock:
                del self._extents[place]
            mine.set_exception(error)
            raise
        mine.set_result(extent)
        self._make_room(len(extent.content))
        return extent

    def _make_room(self, num_bytes: int) -> None:
        with self._lock:
            self.num_read += 1
            self._held_bytes += num_bytes
            for place, future in list(self._extents.items())[:-1]:
                if self._held_bytes <= self._live_bytes:
                    break
                if future.done():
                    self._held_bytes -= len(future.result().content)
                    del self._extents[place]
