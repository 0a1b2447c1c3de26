"""Lock: one start at a time writes into a run folder, and who comes second is told who is first."""

import fcntl
import json
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    # `perceiver status` asks who holds a lock, and World brings torch with it: a second and a half.
    from trainer.world import World


class RunLock:
    """Held by rank 0 for all ranks while the context lasts; the kernel lets go of it when the process dies.

    Across hosts the kernel's lock is not trusted: there the file's content decides, until a start with `take_over`,
    or of the same batch job (which the scheduler runs once), claims it. Entering is Collective: ValueError on every
    rank where another start holds the run.
    """

    def __init__(self, path: Path, world: "World", *, take_over: bool = False, job_id: str = "") -> None:
        self._path = path
        self._world = world
        self._take_over = take_over
        self._job_id = job_id
        self._descriptor = -1

    def __enter__(self) -> Self:
        refusal = self._world.broadcast(self._claim() if self._world.is_first else "")
        if refusal:
            raise ValueError(refusal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def _claim(self) -> str:
        """Take the lock; return why it cannot be taken, or nothing."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        holder = _read(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return (
                f"{self._path}: {_told(holder)}, is training in this run; wait for it, or stop it with `perceiver stop`"
            )
        elsewhere = holder.get("host", socket.gethostname()) != socket.gethostname()
        same_job = bool(self._job_id) and holder.get("job_id") == self._job_id
        if elsewhere and not same_job and not self._take_over:
            os.close(descriptor)
            return (
                f"{self._path}: {_told(holder)}, holds this run, and this host cannot see whether it still lives; "
                "if it does not, start again with --take-over"
            )
        self._descriptor = descriptor
        claim = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "job_id": self._job_id,
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(claim).encode(), 0)
        os.fsync(descriptor)
        return ""


def holder(path: Path) -> str:
    """Return who is training in the run, in words; nothing where nobody is, or a process of this host that is gone."""
    if not path.is_file():
        return ""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        claim = _read(descriptor)
    finally:
        os.close(descriptor)
    is_here = claim.get("host") == socket.gethostname()
    return "" if not claim or (is_here and not Path(f"/proc/{claim.get('pid')}").exists()) else _told(claim)


def _read(descriptor: int) -> dict[str, object]:
    with suppress(ValueError):
        content = json.loads(os.pread(descriptor, 4096, 0))
        if isinstance(content, dict):
            return content
    return {}


def _told(holder: dict[str, object]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
