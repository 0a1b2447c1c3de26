"""Reusable memory for extents and batches.

Fresh memory costs a page fault every 4 kB. That takes longer than reading the bytes that come into it, and for a batch
of 30 MB a third of the time that decoding takes.
"""

import weakref

import numpy as np


class BufferPool:
    """Gives arrays out, and gives their memory out again when nothing refers to it any more. Threads share one."""

    def __init__(self) -> None:
        self._unused: dict[int, list[np.ndarray]] = {}

    def take(self, num_bytes: int) -> np.ndarray:
        """Return uint8 (num_bytes,) with any content."""
        # Rounded up to a power of two: extents differ by a few bytes each, and must find each other's memory.
        capacity = max(1 << 20, 1 << (num_bytes - 1).bit_length())
        unused = self._unused.setdefault(capacity, [])
        try:
            memory = unused.pop()
        # No test before pop(): another thread may take the last one in between. pop() itself is atomic.
        except IndexError:
            memory = np.empty(capacity, np.uint8)
        # What is handed out, and every view into it, keeps `taken` alive; when it goes, nobody sees the memory.
        # Not a slice of `memory`: numpy makes a view of a slice refer to `memory` itself, and `taken` would die too
        # early.
        taken = np.frombuffer(memory.data, np.uint8, num_bytes)
        weakref.finalize(taken, unused.append, memory).atexit = False
        return taken

    def __reduce__(self) -> tuple[type["BufferPool"], tuple[()]]:
        # Another process begins with a pool of its own.
        return BufferPool, ()
