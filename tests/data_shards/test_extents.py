"""What holds extents: nobody waits for a read that failed, and what is dropped is no longer counted."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_shards.format.extents import Extent, ExtentCache


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
