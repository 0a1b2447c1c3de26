"""Board: shared memory with one slot per process of a host. A write costs no disk access and no network traffic.

    slot   | length, 4 bytes | CRC-32, 4 bytes | content                 |   1 024 bytes a process

No lock: a process that was stopped while it held one would stop all others. A reader knows a slot that is half written
by its checksum. Standard library only.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path

SLOT_BYTES = 1024
_HEAD = struct.Struct("<II")


class Board:
    """Each process fills its own slot and reads all of them."""

    def __init__(self, memory: mmap.mmap, descriptor: int = -1) -> None:
        self._memory = memory
        self._descriptor = descriptor

    @staticmethod
    def alone() -> "Board":
        """Return the board of a process that shares none."""
        return Board(mmap.mmap(-1, SLOT_BYTES))

    @staticmethod
    def create(num_slots: int) -> "Board | None":
        """Return a new board, which others can open until it is closed to them; None where there is no memory for it.

        It has no name in any folder: a process that is killed leaves nothing behind.
        """
        try:
            descriptor = os.memfd_create("perceiver-board")
        except OSError:
            return None
        try:
            # All of it now: a page that is not to be had later would end the process by SIGBUS.
            os.write(descriptor, bytes(num_slots * SLOT_BYTES))
            return Board(mmap.mmap(descriptor, num_slots * SLOT_BYTES), descriptor)
        except OSError:
            os.close(descriptor)
            return None

    @property
    def path(self) -> Path:
        """Return the path by which other processes of this host open a new board."""
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def close_to_others(self) -> None:
        """Allow no further process to open it; processes that have it keep it."""
        os.close(self._descriptor)

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
        # A length that is half written may be any number.
        content = self._memory[begin + _HEAD.size : begin + _HEAD.size + min(length, SLOT_BYTES - _HEAD.size)]
        return content if length == len(content) and zlib.crc32(content) == crc else b""
