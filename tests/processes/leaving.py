"""A rank in the place of a process, which leaves when a replaced clock says so."""

from types import SimpleNamespace


class Leaving:
    """A rank that leaves by itself at a time, or when it is killed; its status is known once it has been asked for."""

    def __init__(self, clock: SimpleNamespace, at: float, status: int = 0) -> None:
        self.clock, self.at, self.status = clock, at, status
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self.clock.monotonic() >= self.at:
            self.returncode = self.status
        return self.returncode

    def kill(self) -> None:
        self.returncode = -9 if self.returncode is None else self.returncode

    wait = poll
