"""Requests to stop: a signal, a stop file, a time limit. They are only recorded here.

A handler that saved would deadlock: the other ranks are in the middle of something else. So it sets a flag, the loop
asks at every step boundary, and the ranks agree: docs/decisions/3-stopping-is-collective.md.
"""

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Self

# Slurm sends USR2 before the time limit, because the job asks for it, and TERM at scancel, requeue and preemption.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
_LOOK_EVERY_SECONDS = 1.0


class StopRequest:
    """Whether this process was asked to stop, and by what. A context: the handlers are in place inside."""

    def __init__(self, stop_path: Path | None = None, time_limit_seconds: float = 0.0) -> None:
        self._stop_path = stop_path
        self._deadline = time.monotonic() + time_limit_seconds if time_limit_seconds else float("inf")
        self._next_look = 0.0
        self._pid = os.getpid()
        self._previous: dict[signal.Signals, object] = {}
        self.reason = ""

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def is_raised(self) -> bool:
        """Return whether this rank wants to stop; the stop file is looked for once a second."""
        now = time.monotonic()
        if not self.reason and now >= self._deadline:
            self.reason = "time limit"
        if not self.reason and self._stop_path is not None and now >= self._next_look:
            self._next_look = now + _LOOK_EVERY_SECONDS
            if self._stop_path.exists():
                self.reason = "stop file"
        return bool(self.reason)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        # A forked child inherits the handler; the signal was for the trainer.
        if os.getpid() == self._pid:
            self.reason = signal.Signals(number).name
