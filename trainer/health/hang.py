"""HangWatch: names a rank that died, was stopped or is stuck, keeps the stacks of all ranks, and ends the job.

A thread on each rank tells what the main thread is at, and hears the others, see heartbeats.py. Silence means a
process that is dead or stopped; heartbeats without progress mean one that is stuck. The watcher of the first host hears
all ranks and judges; those of other hosts hear the first host, and judge it where it is silent.

    host A   ranks 0, 1 --memory--> watcher of A  <--file-- watcher of B <--memory-- ranks 2, 3   host B
                                    hears all, judges

    a rank is held up   and another is not heard   -> that one is dead or stopped, and is named
                        and all are heard          -> those with the least progress are stuck, and are named
    one is named        RUN/watch/verdict.json, the stacks of all ranks, the end of all processes: job_end.py
"""

import os
import shutil
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from data_shards.files import atomic
from data_shards.files.display import printable
from trainer.distributed.node import Node
from trainer.distributed.world import World
from trainer.health import verdict
from trainer.health.heartbeats import LEFT, Beat, Beats
from trainer.health.job_end import KNOWS, JobEnd
from trainer.health.process import lives
from trainer.health.verdict import Verdict

_OTHER_PHASES_FACTOR = 10.0
BATCH = "waiting for its batch"
STEP = "a step"
COMPILE = "compiling"


class HangWatch:
    """The watch over a run's processes while the context lasts. Entering: Collective.

    A rank is overdue after `seconds` plus twice the slowest recent step; outside of steps and in a cold one, where
    nobody knows how long things take, after ten times `seconds`; while it compiles, after `compile_seconds`. A rank
    that waits for another may wait as long as that one may take. With 0 seconds nothing is watched. What another host
    tells is known up to a fifth of `seconds` later.
    """

    def __init__(self, folder: Path | None, world: World, seconds: float, *, compile_seconds: float = 1_800.0) -> None:
        self._folder = folder
        self._world = world
        self._seconds = seconds if folder is not None else 0.0
        self._compile_seconds = compile_seconds
        self._interval, self._period = min(1.0, seconds / 10), seconds / 10
        # The main thread writes these and the watch reads them without a lock: a beat between two writes is followed by
        # a right one.
        self._progress = 0
        self._phase = "start"
        self._is_cold = False
        self._compiles = False
        self._since = time.monotonic()
        self._recent: deque[float] = deque(maxlen=50)
        self._step_began: float | None = None
        self._count, self._end_word = 0, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang watch", daemon=True)
        self._beats: Beats | None = None

    def __enter__(self) -> Self:
        if self._seconds > 0 and self._folder is not None:
            if self._world.is_first:
                # A verdict of the attempt before would end this one. No rank writes here before the collectives below.
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder.mkdir(parents=True, exist_ok=True)
            node = Node.join(self._world)
            self.listen_to(node, self._world.gather(self._beat()))
            self._thread.start()
        return self

    def listen_to(self, node: Node, first: Sequence[Beat]) -> None:
        """Hear the ranks, of each of which `first` has a beat."""
        assert self._folder is not None
        self._beats = Beats(self._folder, node, first, interval=self._interval, period=self._period)
        self._ranks.tell(self._beat())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._thread.is_alive():
            return
        self._over.set()
        self._thread.join()
        # Bad input is reported by the first rank alone; the others leave by SystemExit, and none of them is missing.
        if error is None or isinstance(error, ValueError | SystemExit):
            # A count that no beat has had: it is heard as a new one.
            self._phase, self._count = LEFT, sys.maxsize
            self._ranks.leave(self._beat())
            return
        words = f"rank {self._world.rank}: {printable(str(error))}"
        if self._verdict_path.exists():
            # The ranks of another host have ended, and broke the exchange that this one waited in.
            sys.stderr.write(f"{words}; the job ends, see {self._verdict_path}\n")
            self._end(error)
        elif missing := self._missing(patience=2.0):
            # A broken exchange says which socket closed; this says which rank.
            sys.stderr.write(f"{words}; gone: {'; '.join(missing)}\n")

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
        # All ranks pass the same phases: whoever has passed the fewest is the one that the others wait for.
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
        """Return the time limit of the main thread's current activity."""
        if self._compiles:
            return self._compile_seconds
        if self._phase not in (BATCH, STEP) or self._is_cold:
            return _OTHER_PHASES_FACTOR * self._seconds
        return self._seconds + 2 * max(self._recent, default=0.0)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self._interval):
            self._count += 1
            self._ranks.tell(self._beat())
            last, slept = time.monotonic(), time.monotonic() - last
            has_asked = self._ranks.listen()
            if slept > self._seconds / 2:
                # This process was stopped itself, as when a job is suspended: what it did not hear is nobody's silence.
                self._since = last
                self._ranks.forgive(self._ranks.newest)
            if culprits := self._culprits():
                self._convict(culprits)
            # Only with the other looks at the disk: each rank of each host would else ask for the file every second.
            if (has_asked and self._verdict_path.exists()) or any(beat.end for beat in self._ranks.here()):
                self._end()

    @property
    def _ranks(self) -> Beats:
        assert self._beats is not None
        return self._beats

    @property
    def _verdict_path(self) -> Path:
        assert self._folder is not None
        return self._folder / verdict.NAME

    def _beat(self) -> Beat:
        # Compiling is no progress: with a warm cache one rank does less of it than another.
        phase = COMPILE if self._compiles and self._phase != LEFT else self._phase
        return Beat(
            self._world.rank,
            socket.gethostname(),
            os.getpid(),
            self._count,
            self._progress,
            phase,
            self.limit_seconds,
            time.monotonic() - self._since,
            self._end_word,
        )

    def _culprits(self) -> list[tuple[Beat, str]]:
        """Return the ranks that hold up the job, with reasons; none while it makes progress."""
        ranks = self._ranks
        if not ranks.is_watcher:
            return []
        others = [beat for rank, (beat, _) in ranks.newest.items() if rank != self._world.rank and beat.phase != LEFT]
        present, silences = [self._beat(), *others], ranks.silences()
        limit = max(beat.limit_seconds for beat in present)
        # Another host hears only the first one: it would name its own ranks, which wait for a rank that it cannot hear.
        held_up = ranks.node.is_head and any(beat.at_seconds > limit for beat in present)
        # Beats of a busy machine come late. Nobody is named while all make progress, or before a rank was silent for
        # the whole limit.
        if not held_up and max(silences.values(), default=0.0) <= self._seconds:
            return []
        # Silence first: a rank that was stopped is behind, and so are the ranks that wait for it.
        silent = [rank for rank, silence in silences.items() if silence > ranks.patience(rank)]
        if silent:
            return [(ranks.newest[rank][0], f"silent for {silences[rank]:.0f} s") for rank in silent]
        # All are alive and wait for the one that did not get as far.
        least = min(beat.progress for beat in present)
        behind = [beat for beat in present if beat.progress == least]
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
            atomic.write(beside, verdict.text(found), survives_power_cut=False)
            # A link and no rename: it fails where the name is taken, so that of two verdicts at once one holds.
            os.link(beside, self._verdict_path)
        except FileExistsError:
            return
        except OSError as error:  # on a full disk each host ends on what it found by itself
            named = f"{named} (not written: {error.strerror})"
        finally:
            self._tell(KNOWS)
        sys.stderr.write(f"{named}; the job ends; stacks of all ranks are in {self._folder}\n")
        if not self._verdict_path.exists():
            os._exit(1)

    def _end(self, error: BaseException | None = None) -> None:
        """End this process."""
        assert self._folder is not None
        JobEnd(self._folder, self._world.rank, self._ranks, self._tell, self._period).now(error)

    def _tell(self, end_word: str) -> None:
        self._end_word = end_word
        self._ranks.tell(self._beat())

    def _missing(self, patience: float) -> list[str]:
        """Return the ranks of this host that are no longer alive."""
        # A process that dies closes its sockets before it is gone.
        deadline = time.monotonic() + patience
        while True:
            missing = [
                f"rank {beat.rank} (process {beat.pid})" for beat in self._ranks.present() if not lives(beat.pid)
            ]
            if missing or time.monotonic() >= deadline:
                return missing
            time.sleep(0.1)
