"""The cache of fetched files: named by SHA-256, limited in size, shared by the processes of a node.

Only what this cache has fetched is ever deleted: it lives in a folder of its own, under names that are hashes. A file
appears under its name when it is whole and its hash is right. Who has opened a file keeps it, even if it is deleted.

    CACHE/perceiver-shards/
        3fa9...e1                    a file, whole and checked; its time of change is that of its last use
        3fa9...e1.PID.THREAD.part    one on its way
        00.lock ... ff.lock          held by who fetches a file; by the hash, so that there are 256 and not one a shard
        delete.lock                  held by who makes room
"""

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_shards.files import atomic

FOLDER_NAME = "perceiver-shards"
_NUM_LOCKS = 256


class ShardCache:
    """Files by their hash. Threads and processes share one folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder / FOLDER_NAME
        self._max_bytes = max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)

    def open(self, sha256: str, num_bytes: int, fetch: Callable[[Path], None]) -> BinaryIO:
        """Return the file with that hash, opened unbuffered; `fetch` writes it to a path where it is not here yet.

        `fetch` raises where it cannot give a file of that size and hash, and nothing is kept of it.
        """
        path = self._folder / sha256
        if (file := _opened(path)) is not None:
            return file
        # One process of the node fetches; the others wait here, and then find it.
        with self._locked(f"{int(sha256, 16) % _NUM_LOCKS:02x}.lock"):
            return _opened(path) or self._fetched(path, num_bytes, fetch)

    def _fetched(self, path: Path, num_bytes: int, fetch: Callable[[Path], None]) -> BinaryIO:
        # Whoever holds the lock is the only one to fetch this file: other parts are of processes that were killed.
        for left_over in self._folder.glob(f"{path.name}.*.part"):
            left_over.unlink(missing_ok=True)
        self._make_room(num_bytes)
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            fetch(part)
            atomic.sync(part)  # after a power cut a name must not stand for less than it had
            # Opened before it has its name: from then on another process may delete it to make room.
            file = part.open("rb", buffering=0)
            atomic.rename(part, path)
        finally:
            part.unlink(missing_ok=True)
        return file

    def _make_room(self, num_bytes: int) -> None:
        with self._locked("delete.lock"):
            ours = [path for path in self._folder.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)]
            files = sorted(((path.stat(), path) for path in ours), key=lambda file: file[0].st_mtime_ns)
            held_bytes = sum(status.st_size for status, _ in files)
            for status, path in files:
                # With what is about to come: the limit holds while it arrives, too.
                if held_bytes + num_bytes <= self._max_bytes:
                    break
                path.unlink()
                held_bytes -= status.st_size

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a lock that excludes other processes, and other threads as well: each has a descriptor of its own."""
        with (self._folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _opened(path: Path) -> BinaryIO | None:
    """Return the file, marked as used just now; None where there is none."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    # The time of change, since many file systems do not keep that of access. By the descriptor: the name may be gone.
    os.utime(file.fileno())
    return file
