"""AttemptTime: how an attempt spent its time. The file is updated during the run, so a kill loses nothing.

RUN/attempts/0001/time.json    steps   0 to 120    killed; the newest checkpoint is of step 100
RUN/attempts/0002/time.json    steps 100 to 300    finished

    lost       20 steps of attempt 1, which attempt 2 made again
    goodput    (100 / 120 of the compute time of 1, and all of that of 2) / wall time of both
"""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_shards.files import atomic, history
from data_shards.files.display import printable

if TYPE_CHECKING:
    # Only its name: `perceiver status` reads entries, and starts four times faster without torch.
    from trainer.distributed.world import World

Part = Literal["start_up", "compile", "data_wait", "compute", "evaluation", "save"]
PARTS: tuple[Part, ...] = ("start_up", "compile", "data_wait", "compute", "evaluation", "save")
KILLED = "killed"
_WRITE_EVERY_SECONDS = 5.0
FILE = "time.json"


@dataclass(frozen=True)
class TimeEntry:
    """One attempt: where it ran, how far it came and where its time went."""

    number: int
    """The number of the attempt, from 1."""
    hosts: tuple[str, ...]
    """The hosts of its ranks."""
    world_size: int
    """The number of ranks."""
    started_at: float
    """When it started, in Unix seconds."""
    first_step: int = 0
    """Steps that were done before it."""
    last_step: int = 0
    """Steps that were done when it was last seen."""
    seen_at: float = 0.0
    """When this was written, Unix seconds."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    """How its time was spent."""
    rollbacks: int = 0
    """Times that it went back."""
    ended: str = KILLED
    """Why it ended: "finished", "preempted (SIGTERM)", an error; "killed" until it says otherwise."""


class AttemptTime:
    """Counts the seconds of this attempt and writes them on rank 0. Collective in its construction."""

    def __init__(self, folder: Path | None, world: "World") -> None:
        """`folder` is that of the attempt, named by its number; without one nothing is written."""
        hosts = tuple(sorted(set(world.gather(socket.gethostname()))))
        self._folder = folder if world.is_first else None
        number = int(folder.name) if folder else 1
        now = time.time()
        self._attempt = TimeEntry(number, hosts, world.world_size, now, seen_at=now)
        self._spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._next_write = 0.0
        self._write()

    @property
    def number(self) -> int:
        """Which attempt this is, from 1."""
        return self._attempt.number

    @contextmanager
    def spent(self, part: Part) -> Iterator[None]:
        """Count the time inside as this part's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - started)

    def add(self, part: Part, seconds: float) -> None:
        """Count seconds as this part's."""
        self._spent[part] += seconds

    def started(self, step: int) -> None:
        """Say from which step this attempt resumes."""
        self._attempt = replace(self._attempt, first_step=step, last_step=step)
        self._write()

    def reached(self, step: int, rollbacks: int = 0) -> None:
        """Say how far it is; the file follows every few seconds."""
        self._attempt = replace(self._attempt, last_step=step, rollbacks=rollbacks)
        if time.monotonic() >= self._next_write:
            self._write()

    def end(self, reason: str) -> None:
        """Say why it ended."""
        self._attempt = replace(self._attempt, ended=printable(reason))
        self._write()

    def _write(self) -> None:
        self._next_write = time.monotonic() + _WRITE_EVERY_SECONDS
        self._attempt = replace(self._attempt, seconds=dict(self._spent), seen_at=time.time())
        if self._folder is None:
            return
        with suppress(OSError):  # a full disk must not end the run; the next writing has all of it
            # The next writing has all of it; the last one has to stay.
            is_last = self._attempt.ended != KILLED
            atomic.write(self._folder / FILE, json.dumps(asdict(self._attempt), indent=1), survives_power_cut=is_last)


def read(attempts: Sequence[Path]) -> list[TimeEntry]:
    """Return the entries of the attempts with these folders; one that cannot be read is reported and left out."""
    found = {int(folder.name): history.entry(TimeEntry, folder / FILE) for folder in attempts}
    return [replace(entry, number=number) for number, entry in found.items() if entry is not None]


def lost_steps(attempts: Sequence[TimeEntry]) -> list[int]:
    """Return, for each attempt, the steps it did that a later one did again."""
    following = [attempt.first_step for attempt in attempts[1:]]
    # The last word of an attempt that was killed may be older than its last checkpoint.
    lost = [max(attempt.last_step - first, 0) for attempt, first in zip(attempts, following, strict=False)]
    return [*lost, *[0] * (len(attempts) - len(lost))]


def goodput(attempts: Sequence[TimeEntry]) -> float:
    """Return the fraction of the wall time spent on steps that were kept: (compute time - lost work) / all time."""
    useful = 0.0
    for attempt, lost in zip(attempts, lost_steps(attempts), strict=True):
        done = attempt.last_step - attempt.first_step
        useful += attempt.seconds.get("compute", 0.0) * (1 - lost / done if done else 0.0)
    # A clock that was set back says less than the parts of the time, which are measured by another one.
    wall = sum(max(each.seen_at - each.started_at, sum(each.seconds.values())) for each in attempts)
    return useful / wall if wall > 0 else 0.0
