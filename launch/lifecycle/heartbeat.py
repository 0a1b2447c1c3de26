"""Heartbeat: shows that a rank lives, and ends it soon after a later attempt begins, even while it waits.

RUN/attempts/0003/rank_2.json   touched by the rank itself, until the ranks know of each other
RUN/attempts/0003/alive_0.json  of the host whose first rank is 0: how long ago each of its ranks was heard

Once the ranks have met, those of a host hear each other over memory, and one of them, the first that is not silent,
writes for all and looks for a later attempt: for 8 ranks 40 times a minute, where each by itself did so 30 times. The
time of a file is the disk's: clocks of hosts are not compared.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Only its name: a rank has no torch yet when it begins to be watched.
    from trainer.distributed.node import Node

_MISSED = 4
_ENDS = b"ends"


class Heartbeat(threading.Event):
    """Is given by a thread until this event is set, or until the attempt is not the newest any more."""

    def __init__(self, path: Path, seconds: float, is_newest: Callable[[], bool], end: Callable[[], None]) -> None:
        """`path` is this rank's record, touched every so many seconds; `end` ends the process."""
        super().__init__()
        self._path, self._seconds = path, seconds
        self._is_newest, self._end = is_newest, end
        self._node: Node | None = None
        self._heard: dict[int, tuple[bytes, float]] = {}
        self._count = 0
        # From the start of a rank on: it may hang as well while it imports torch, or waits for the others.
        threading.Thread(target=self._run, name="fence", daemon=True).start()

    def share(self, node: "Node") -> None:
        """From now on, let one rank of the host write and check for all of them."""
        # Alone on its host a rank has nobody to write for it.
        if len(node.ranks) > 1:
            self._node = node

    def _run(self) -> None:
        while self._alone() if self._node is None else self._among(self._node):
            # Among others a beat costs no call; it is heard half a second after it was given, and told by the third.
            if self.wait(self._seconds if self._node is None else self._seconds / 4):
                return
        # This attempt may have ended while it looked, and what it then saw begun is what follows it.
        if not self.is_set():
            self._end()

    def _alone(self) -> bool:
        """Tell that this rank lives; return whether its attempt is the newest."""
        if not self._is_newest():
            return False
        with suppress(OSError):  # a folder that is away for a moment must not end the watch
            os.utime(self._path)
        return True

    def _among(self, node: "Node") -> bool:
        """Do the same as one of several of a host."""
        self._count += 1
        node.put(b"%d" % self._count)
        ages = self._ages(node)
        if any(said == _ENDS for said, _ in self._heard.values()):
            return False
        # The lowest rank that is heard writes; one that is stopped is passed over after a few beats.
        awake = (rank for rank, age in ages.items() if rank == node.rank or age < _MISSED * self._seconds)
        # Every third beat reaches the disk.
        if next(awake) != node.rank or self._count % 3:
            return True
        with suppress(OSError):
            _overwrite(self._path.with_name(f"alive_{node.first}.json"), ages)
        if self._is_newest():
            return True
        # The other ranks of this host read only memory.
        node.put(_ENDS)
        return False

    def _ages(self, node: "Node") -> dict[int, float]:
        """Return for each rank of this host how long ago it was heard, in seconds."""
        now = time.monotonic()
        for rank, said in node.get().items():
            if rank not in self._heard or self._heard[rank][0] != said:
                self._heard[rank] = (said, now)
        return {rank: now - self._heard.setdefault(rank, (b"", now))[1] for rank in node.ranks}


def _overwrite(path: Path, ages: dict[int, float]) -> None:
    """Write in place, so that a disk that is full takes it too; it is as long every time."""
    content = json.dumps({str(rank): f"{min(age, 99_999.0):7.1f}" for rank, age in ages.items()}).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, content, 0)
    finally:
        os.close(descriptor)
