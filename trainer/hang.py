"""HangWatch: a rank that died, was stopped or is stuck is named, everyone's stacks are kept, and the job ends.

A thread on each rank writes a heartbeat file; the threads read each other's. Silence means a process that is dead or
stopped; heartbeats without progress mean one that is stuck. Files and not sockets, because a stopped process answers
no socket, and because they are there to read afterwards.
"""

import faulthandler
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from data_shards import durable, json_file
from data_shards.display import printable
from trainer import verdict
from trainer.process import lives
from trainer.verdict import Verdict
from trainer.world import World

_GRACE_SECONDS = 5.0
_OTHER_PHASES_FACTOR = 10.0
_MISSED_BEATS = 4
BATCH = "waiting for its batch"
STEP = "a step"
COMPILE = "compiling"
LEFT = "left"


@dataclass(frozen=True)
class Beat:
    """What a rank last told of itself."""

    rank: int
    host: str
    pid: int
    count: int
    """Rises with every heartbeat: clocks of hosts are not compared."""
    progress: int
    """Rises with every step and every change of phase."""
    phase: str
    """What the main thread is at; LEFT once it has gone in good order."""
    limit_seconds: float = 0.0
    """How long it may be at it: who waits for this rank waits as long."""


class HangWatch:
    """The watch over a run's processes while the context lasts. Entering: Collective.

    A rank is overdue after `seconds` plus twice the slowest recent step; outside of steps and in a cold one, where
    nobody knows how long things take, after ten times `seconds`; while it compiles, after `compile_seconds`. A rank
    that waits for another may wait as long as that one may take. With 0 seconds nothing is watched.
    """

    def __init__(self, folder: Path | None, world: World, seconds: float, *, compile_seconds: float = 1_800.0) -> None:
        self._folder = folder
        self._world = world
        self._seconds = seconds if folder is not None else 0.0
        self._compile_seconds = compile_seconds
        self._interval = min(1.0, seconds / 10)
        self._progress = 0
        self._phase = "start"
        self._is_cold = False
        self._compiles = False
        self._since = time.monotonic()
        self._recent: deque[float] = deque(maxlen=50)
        self._step_began: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang watch", daemon=True)
        self._heard: dict[int, tuple[Beat, float]] = {}
        self._mine = self._beat(0)

    def __enter__(self) -> Self:
        if self._seconds > 0 and self._folder is not None:
            if self._world.is_first:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder.mkdir(parents=True, exist_ok=True)
            self._world.barrier()
            self._write_beat(0)
            self._world.barrier()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._thread.is_alive():
            return
        self._over.set()
        self._thread.join()
        # Bad input is told by the first rank alone; the others leave by SystemExit, and none of them is missing.
        if error is None or isinstance(error, ValueError | SystemExit):
            self._phase = LEFT
            self._write_beat(sys.maxsize)
        elif missing := self._missing(patience=2.0):
            # A broken exchange says which socket closed; this says which rank.
            sys.stderr.write(f"rank {self._world.rank}: {printable(str(error))}; gone: {'; '.join(missing)}\n")

    def at(self, phase: str, *, is_cold: bool = False) -> None:
        """Say what the main thread is at; STEP begins a step, BATCH the wait for its batch.

        A step `is_cold` if caches, libraries and connections are not yet warm: its time is no measure of later ones.
        """
        now = time.monotonic()
        if phase == BATCH:
            if self._step_began is not None and not self._is_cold:
                self._recent.append(now - self._step_began)
            self._step_began = now
        elif phase != STEP:
            self._step_began = None
        self._phase, self._since, self._is_cold = phase, now, is_cold
        self._progress += 1

    def compiles(self) -> None:
        """Say that the main thread, whatever it is at, waits for a compiler from now on."""
        self._compiles, self._since = True, time.monotonic()

    def compiled(self) -> None:
        """Say that the compiler is done: what the main thread was at begins anew, and no step took that time."""
        now = time.monotonic()
        if self._step_began is not None:
            self._step_began += now - self._since
        self._compiles, self._since = False, now

    @property
    def limit_seconds(self) -> float:
        """How long the main thread may be at what it is at."""
        if self._compiles:
            return self._compile_seconds
        if self._phase not in (BATCH, STEP) or self._is_cold:
            return _OTHER_PHASES_FACTOR * self._seconds
        return self._seconds + 2 * max(self._recent, default=0.0)

    def _run(self) -> None:
        count, last = 0, time.monotonic()
        while not self._over.wait(self._interval):
            count += 1
            self._write_beat(count)
            last, slept = time.monotonic(), time.monotonic() - last
            if slept > self._seconds / 2:
                # This process was stopped itself, as when a job is suspended: what it did not hear is nobody's silence.
                self._forgive()
            if culprits := self._culprits():
                self._convict(culprits)
            if self._verdict_path.exists():
                self._end()

    @property
    def _verdict_path(self) -> Path:
        assert self._folder is not None
        return self._folder / verdict.NAME

    def _beat(self, count: int) -> Beat:
        # Compiling is no progress: with a warm cache one rank does less of it than another.
        phase = COMPILE if self._compiles and self._phase != LEFT else self._phase
        host, pid = socket.gethostname(), os.getpid()
        return Beat(self._world.rank, host, pid, count, self._progress, phase, self.limit_seconds)

    def _forgive(self) -> None:
        now = time.monotonic()
        self._since = now
        self._heard = {rank: (beat, now) for rank, (beat, _) in self._heard.items()}

    def _write_beat(self, count: int) -> None:
        assert self._folder is not None
        beat = self._mine = self._beat(count)
        path = self._folder / f"rank_{self._world.rank}.json"
        with suppress(OSError):  # a full disk must not end the run; silence would
            durable.write(path, json.dumps(asdict(beat)), survives_power_cut=False)

    def _listen(self) -> dict[int, tuple[Beat, float]]:
        """Return the newest beat of each other rank, and when this rank first heard it."""
        now = time.monotonic()
        for rank in range(self._world.world_size):
            with suppress(OSError, ValueError, TypeError):
                assert self._folder is not None
                beat = json_file.read(Beat, self._folder / f"rank_{rank}.json")
                known = self._heard.get(rank)
                if known is None or known[0].count != beat.count:
                    self._heard[rank] = (beat, now)
        return {rank: heard for rank, heard in self._heard.items() if rank != self._world.rank}

    def _culprits(self) -> list[tuple[Beat, str]]:
        """Return who holds up the job, and why that is thought; nobody while it goes on."""
        now = time.monotonic()
        others = self._listen()
        silences = {rank: now - heard for rank, (beat, heard) in others.items() if beat.phase != LEFT}
        may_take = [beat.limit_seconds for beat, _ in others.values() if beat.phase != LEFT]
        held_up = now - self._since > max([self.limit_seconds, *may_take])
        if not held_up and max(silences.values(), default=0.0) <= self._seconds:
            return []
        silent = [rank for rank, silence in silences.items() if silence > _MISSED_BEATS * self._interval]
        if silent:
            return [(others[rank][0], f"silent for {silences[rank]:.0f} s") for rank in silent]
        # All are alive and wait for the one that did not get as far.
        everyone = [self._mine, *(beat for beat, _ in others.values())]
        least = min(beat.progress for beat in everyone)
        behind = [beat for beat in everyone if beat.progress == least]
        # Who compiles has not yet come to the exchange that ranks of the same progress wait in.
        compiling = [beat for beat in behind if beat.phase == COMPILE]
        return [(beat, f"stuck in {beat.phase}") for beat in compiling or behind]

    def _convict(self, culprits: list[tuple[Beat, str]]) -> None:
        """Name them to everyone: the first verdict holds."""
        named = "; ".join(f"rank {beat.rank} (host {beat.host}, process {beat.pid}): {why}" for beat, why in culprits)
        found = Verdict(
            tuple(beat.rank for beat, _ in culprits), tuple(beat.pid for beat, _ in culprits), named, self._world.rank
        )
        beside = self._verdict_path.with_name(f".verdict.{self._world.rank}")
        try:
            durable.write(beside, verdict.text(found), survives_power_cut=False)
            os.link(beside, self._verdict_path)
        except FileExistsError:
            return
        except OSError as error:  # on a full disk each rank ends on what it found by itself
            named = f"{named} (not written: {error.strerror})"
        sys.stderr.write(f"{named}; the job ends; stacks of all ranks are in {self._folder}\n")
        if not self._verdict_path.exists():
            os._exit(1)

    def _end(self) -> None:
        """Write the stacks of this process and end it: the main thread may be in a call that never returns."""
        stacks = self._stacks_path(self._world.rank)
        with suppress(OSError), durable.written_beside(stacks, survives_power_cut=False) as file:
            faulthandler.dump_traceback(file.fileno(), all_threads=True)
        culprits = verdict.convicted_pids(self._verdict_path.parent)
        beats = [self._mine, *(beat for beat, _ in self._listen().values())]
        present = [beat for beat in beats if beat.phase != LEFT]
        here = [beat for beat in present if beat.host == socket.gethostname()]
        # One innocent rank a host sees to it that nothing is left behind there.
        keeper = min(here, key=lambda beat: (beat.rank in culprits, beat.rank))
        others = [beat.pid for beat in here if beat.rank != self._world.rank] if keeper.rank == self._world.rank else []
        _signal(others, signal.SIGCONT)  # a stopped process can write its stacks then
        # Who leaves breaks the exchange that the others wait in, and they would leave before they have written.
        _wait(lambda: all(self._stacks_path(beat.rank).exists() for beat in present), _GRACE_SECONDS)
        if others:
            _wait(lambda: not any(lives(pid) for pid in others), _GRACE_SECONDS)
            _signal(others, signal.SIGKILL)
        os._exit(1)

    def _stacks_path(self, rank: int) -> Path:
        assert self._folder is not None
        return self._folder / f"stacks_rank_{rank}.txt"

    def _missing(self, patience: float) -> list[str]:
        """Return the ranks of this host that are no longer alive."""
        deadline = time.monotonic() + patience
        while True:
            here = [beat for beat, _ in self._listen().values() if beat.host == socket.gethostname()]
            missing = [f"rank {beat.rank} (process {beat.pid})" for beat in here if not lives(beat.pid)]
            if missing or time.monotonic() >= deadline:
                return missing
            time.sleep(0.1)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(done: Callable[[], bool], seconds: float) -> None:
    """Wait until it is done, but no longer than this."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)
