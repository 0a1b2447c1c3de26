"""What holds extents: nobody waits for a read that failed, and what is dropped is no longer counted."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_shards.format import extents
from data_shards.format.buffers import BufferPool
from data_shards.format.extents import Extent, ExtentCache
from data_shards.format.tar_index import checksum


def extent(num_bytes: int) -> Extent:
    return Extent(0, memoryview(bytes(num_bytes)), 0)


def test_whoever_waits_for_a_read_that_fails_hears_of_it() -> None:
    cache, begun, waits = ExtentCache(100), threading.Event(), threading.Event()

    def failing() -> Extent:
        begun.set()
        assert waits.wait(30)
        raise OSError("the disk is gone")

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(cache.fetch, (0, 0), failing)
        assert begun.wait(30)
        second = cache._coming[0, 0]  # what any other thread would wait for
        waits.set()
        for future in (first, second):
            with pytest.raises(OSError, match="the disk is gone"):
                future.result(timeout=30)
    assert not cache.is_known((0, 0))


def test_what_was_cleared_is_not_counted() -> None:
    cache = ExtentCache(100)
    for number in range(3):
        cache.fetch((0, number), lambda: extent(30))
    cache.clear()
    assert cache.held_bytes == 0
    for number in range(3):
        cache.fetch((1, number), lambda: extent(30))
    assert list(cache.held) == [(1, 0), (1, 1), (1, 2)]
    assert cache.held_bytes == 90


def test_the_oldest_extents_are_dropped_until_the_rest_has_room() -> None:
    cache = ExtentCache(100)
    for number, num_bytes in enumerate((40, 60)):
        assert len(cache.fetch((0, number), lambda size=num_bytes: extent(size)).content) == num_bytes  # type: ignore[misc]
    # As much as is allowed.
    assert (list(cache.held), cache.held_bytes, cache.num_read) == ([(0, 0), (0, 1)], 100, 2)
    held = cache.held[0, 1]
    assert cache.fetch((0, 1), lambda: pytest.fail("it is held")) is held
    cache.fetch((0, 2), lambda: extent(1))
    assert (list(cache.held), cache.held_bytes, cache.num_read) == ([(0, 1), (0, 2)], 61, 3)
    # The newest stays, however large it is.
    cache.fetch((0, 3), lambda: extent(500))
    assert (list(cache.held), cache.held_bytes, cache.num_read) == ([(0, 3)], 500, 4)
    assert cache.is_known((0, 3))
    assert not cache.is_known((0, 2))


def test_a_read_is_made_again_after_one_that_failed() -> None:
    cache = ExtentCache(100)

    def failing() -> Extent:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fetch((0, 0), failing)
    assert cache.num_read == 0
    assert len(cache.fetch((0, 0), lambda: extent(7)).content) == 7


class InPieces(io.RawIOBase):
    """A file of which a read gives three bytes at most."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def seek(self, place: int, _whence: int = 0) -> int:
        return self._file.seek(place)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._file.read(min(3, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def test_bytes_are_read_to_the_last_however_few_come_at_once() -> None:
    content = bytes(range(20))
    found = extents.read(InPieces(content), 4, 15, BufferPool())  # type: ignore[arg-type]
    assert (found.begin, bytes(found.content), found.crc) == (4, content[4:15], checksum(content[4:15]))
    with pytest.raises(EOFError, match=r"^it ends at byte 20, a sample at byte 23$"):
        extents.read(InPieces(content), 4, 23, BufferPool())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "extent_bytes", "expected"),
    [
        ([10] * 3, 100, [0, 3]),
        ([100] * 3, 100, [0, 1, 2, 3]),
        # A rest of half an extent is one of its own, a shorter one belongs to the extent before it.
        ([100, 50], 100, [0, 1, 2]),
        ([100, 49], 100, [0, 2]),
        ([49], 100, [0, 1]),
        ([250, 10, 90], 100, [0, 1, 3]),
    ],
)
def test_extents_are_cut_at_the_first_sample_behind_each_border(
    lengths: list[int], extent_bytes: int, expected: list[int]
) -> None:
    ends = np.cumsum(lengths) + 512
    spans = np.stack([ends - lengths, ends], axis=1)
    assert extents.cuts(spans, extent_bytes).tolist() == expected
