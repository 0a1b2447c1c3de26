"""Lock: one start at a time writes into a run folder. A second start is refused with the holder's name.

    kernel's lock   host in the file      a start here
    free            this one, or none     takes it
    free            another               is refused, unless --take-over: on some disks a lock is seen by one host alone
    held            any                   is refused

Standard library only: `perceiver status` asks who holds it, and torch takes a second and a half.
"""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Self

from data_shards.files.typed_json import parse_object
from trainer.health.process import lives, start_ticks

# Who asks for the holder, such as `perceiver status --watch`, holds the lock for microseconds.
_TRIES = 20
_PAUSE_SECONDS = 0.05
_TRAINING = "is training in this run; wait for it, or stop it with `perceiver stop`"


class RunLock:
    """Held while the context lasts; the kernel lets go of it when the process dies.

    Children that inherit the descriptor hold it too. Across hosts the kernel's lock is not trusted: there the file's
    content decides, until a start with `take_over` claims it. Entering raises ValueError where another start holds the
    run.
    """

    def __init__(self, path: Path, *, take_over: bool = False, job_id: str = "", held: str = _TRAINING) -> None:
        """`held` says what the holder does, and what can be done about it."""
        self._path = path
        self._take_over = take_over
        self._job_id = job_id
        self._held = held
        self.descriptor = -1
        """The open lock file's descriptor; a child inherits it only where it is passed on."""

    def __enter__(self) -> Self:
        if refusal := self._claim():
            raise ValueError(refusal)
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor >= 0:
            # Emptied and not removed: a start that has the file open would lock a file without a name, while the next
            # start locks a new one.
            with suppress(OSError):  # who reads the claim of a process that is gone knows that it is
                os.ftruncate(self.descriptor, 0)
            os.close(self.descriptor)
            self.descriptor = -1

    def _claim(self) -> str:
        """Take the lock; return why it cannot be taken, or nothing."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            return (
                f"{self._path}: cannot be opened ({error.strerror}); correct its permissions or choose another --run "
                "folder"
            )
        refusal = self._taken(descriptor)
        if refusal:
            os.close(descriptor)
            return refusal
        self.descriptor = descriptor
        claim = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start_ticks": start_ticks(os.getpid()),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "job_id": self._job_id,
        }
        # Emptied first, since the claim before may have been longer.
        with suppress(OSError):  # on a full disk the kernel's lock holds without a word on who has it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(claim).encode(), 0)
            os.fsync(descriptor)
        return ""

    def _taken(self, descriptor: int) -> str:
        """Lock the open file; return why it is another's, or nothing."""
        claim = _read(descriptor)
        try:
            is_free = _lock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            return (
                f"{self._path}: this file system has no locks (flock: {error.strerror}), so that nothing would keep "
                "two trainings apart; mount it with locks (Lustre: -o flock), or put --run on another file system"
            )
        if not is_free:
            return f"{self._path}: {told(claim)}, {self._held}"
        elsewhere = claim.get("host", socket.gethostname()) != socket.gethostname()
        if elsewhere and not self._take_over:
            return (
                f"{self._path}: {told(claim)}, holds this run, and this host cannot see whether it still lives; "
                "if it does not, start again with --take-over"
            )
        return ""


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock, as far as the kernel of this host can see."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two who ask do not take each other for a holder.
        return not _lock(descriptor, fcntl.LOCK_SH)
    except OSError:
        return is_alive_here(_read(descriptor))
    finally:
        os.close(descriptor)


def claim_in(path: Path) -> dict[str, object]:
    """Return what the newest holder wrote of itself; nothing where there was none, or it has left."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def is_alive_here(claim: dict[str, object]) -> bool:
    """Return whether the process that wrote a claim lives on this host."""
    pid, ticks = claim.get("pid"), claim.get("start_ticks")
    if claim.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    # Without a word on it by an earlier release; 0 where the system does not tell.
    return lives(pid) if ticks is None else bool(ticks) and start_ticks(pid) == ticks


def told(claim: dict[str, object]) -> str:
    """Return a claim in words."""
    if not claim:
        return "another process"
    return f"process {claim.get('pid')} on {claim.get('host')}, since {claim.get('since')}"


def _lock(descriptor: int, kind: int) -> bool:
    """Lock the file; return whether it was free. OSError if the file system has no locks."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return True
    return False


def _read(descriptor: int) -> dict[str, object]:
    # A damaged claim holds up no start: the kernel's lock decides, the file says who has it.
    with suppress(ValueError, OSError):
        return parse_object(os.pread(descriptor, 4096, 0))
    return {}
