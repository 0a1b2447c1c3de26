"""Ledger: where the time of every attempt at a run went. One file an attempt, rewritten as it goes, so kills are seen.

RUN/ledger/0001.json
"""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_shards.files import atomic, history
from data_shards.files.display import printable

if TYPE_CHECKING:
    # Only its name: `perceiver status` reads ledgers, and starts four times faster without torch.
    from trainer.distributed.world import World

Part = Literal["start_up", "compile", "data_wait", "compute", "evaluation", "save"]
PARTS: tuple[Part, ...] = ("start_up", "compile", "data_wait", "compute", "evaluation", "save")
KILLED = "killed"
_WRITE_EVERY_SECONDS = 5.0
_NAME = re.compile(r"\d{4,9}\.json")


@dataclass(frozen=True)
class Attempt:
    """One start of a run."""

    number: int
    """From 1."""
    hosts: tuple[str, ...]
    """Where its ranks ran."""
    world_size: int
    """How many ranks."""
    started_at: float
    """Unix seconds."""
    first_step: int = 0
    """Steps that were done before it."""
    last_step: int = 0
    """Steps that were done when it was last seen."""
    seen_at: float = 0.0
    """When this was written, Unix seconds."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    """Where its time went."""
    rollbacks: int = 0
    """Times that it went back."""
    ended: str = KILLED
    """Why it ended: "finished", "preempted (SIGTERM)", an error; "killed" until it says otherwise."""


class Ledger:
    """The entry of this attempt, on rank 0; without a folder it only counts. Construction: Collective."""

    def __init__(self, folder: Path | None, world: "World") -> None:
        hosts = tuple(sorted(set(world.gather(socket.gethostname()))))
        self._folder = folder if world.is_first else None
        # By the names: an entry that cannot be read keeps its number.
        number = max((int(path.stem) for path in _paths(self._folder)), default=0) + 1 if self._folder else 1
        now = time.time()
        self._attempt = Attempt(number, hosts, world.world_size, now, seen_at=now)
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
        """Say from which step this attempt goes on."""
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
        path = self._folder / f"{self._attempt.number:04d}.json"
        with suppress(OSError):  # a full disk must not end the run; the next writing has all of it
            self._folder.mkdir(exist_ok=True)
            # The next writing has all of it; the last one has to stay.
            is_last = self._attempt.ended != KILLED
            atomic.write(path, json.dumps(asdict(self._attempt), indent=1), survives_power_cut=is_last)


def read(folder: Path) -> list[Attempt]:
    """Return the attempts of a run, oldest first; an entry that cannot be read is told and left out."""
    entries = {int(path.stem): history.entry(Attempt, path) for path in _paths(folder)}
    return [replace(entry, number=number) for number, entry in entries.items() if entry is not None]


def _paths(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("[0-9]*.json") if _NAME.fullmatch(path.name))
    return sorted(found, key=lambda path: int(path.stem))


def lost_steps(attempts: list[Attempt]) -> list[int]:
    """Return, for each attempt, the steps it did that a later one did again."""
    following = [attempt.first_step for attempt in attempts[1:]]
    lost = [max(attempt.last_step - first, 0) for attempt, first in zip(attempts, following, strict=False)]
    return [*lost, *[0] * (len(attempts) - len(lost))]


def goodput(attempts: list[Attempt]) -> float:
    """Return the share of the wall time that made steps which lasted: compute time less lost work, over all time."""
    useful = 0.0
    for attempt, lost in zip(attempts, lost_steps(attempts), strict=True):
        done = attempt.last_step - attempt.first_step
        useful += attempt.seconds.get("compute", 0.0) * (1 - lost / done if done else 0.0)
    # A clock that was set back says less than the parts of the time, which are measured by another one.
    wall = sum(max(each.seen_at - each.started_at, sum(each.seconds.values())) for each in attempts)
    return useful / wall if wall > 0 else 0.0
