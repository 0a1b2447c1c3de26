"""Board: a slot for each process of a host, in memory that they share. What is told there asks no disk and no network.

Standard library only.
"""

import mmap
import os
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

SLOT_BYTES = 1024
_HEAD = struct.Struct("<II")
_SHARED_MEMORY = Path("/dev/shm")


class Board:
    """Each process fills its own slot and reads all of them."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    @staticmethod
    def alone() -> "Board":
        """Return the board of a process that shares none."""
        return Board(mmap.mmap(-1, SLOT_BYTES))

    @staticmethod
    def create(num_slots: int) -> "tuple[Board, Path] | None":
        """Return a new board and the file by which others open it; None where this host has no room for one."""
        for folder in (_SHARED_MEMORY, Path(tempfile.gettempdir())):
            with suppress(OSError):
                descriptor, name = tempfile.mkstemp(prefix="perceiver-board-", dir=folder)
                try:
                    # All of it now: a page that a full tmpfs cannot give later would end the process by SIGBUS.
                    os.write(descriptor, bytes(num_slots * SLOT_BYTES))
                    return Board(mmap.mmap(descriptor, num_slots * SLOT_BYTES)), Path(name)
                except OSError:
                    Path(name).unlink()
                finally:
                    os.close(descriptor)
        return None

    @staticmethod
    def open(path: Path) -> "Board | None":
        """Return the board that another process of this host made; None where it cannot be seen from here."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return Board(mmap.mmap(descriptor, 0))
        finally:
            os.close(descriptor)

    def put(self, slot: int, content: bytes) -> None:
        """Fill a slot."""
        assert _HEAD.size + len(content) <= SLOT_BYTES
        begin = slot * SLOT_BYTES
        whole = _HEAD.pack(len(content), zlib.crc32(content)) + content
        self._memory[begin : begin + len(whole)] = whole

    def get(self, slot: int) -> bytes:
        """Return what is in a slot; nothing where it is empty, or is being filled just now."""
        begin = slot * SLOT_BYTES
        length, crc = _HEAD.unpack_from(self._memory, begin)
        if not length:
            return b""
        content = self._memory[begin + _HEAD.size : begin + _HEAD.size + min(length, SLOT_BYTES - _HEAD.size)]
        return content if length == len(content) and zlib.crc32(content) == crc else b""
