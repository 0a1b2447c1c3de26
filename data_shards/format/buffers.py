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
        capacity = max(1 << 20, 1 << (num_bytes - 1).bit_length())
        unused = self._unused.setdefault(capacity, [])
        try:
            memory = unused.pop()
        except IndexError:
            memory = np.empty(capacity, np.uint8)
        # What is handed out, and every view into it, keeps `taken` alive; when it goes, nobody sees the memory.
        taken = np.frombuffer(memory.data, np.uint8, num_bytes)
        weakref.finalize(taken, unused.append, memory).atexit = False
        return taken

    def __reduce__(self) -> tuple[type["BufferPool"], tuple[()]]:
        # Another process begins with a pool of its own.
        return BufferPool, ()
