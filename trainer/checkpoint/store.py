"""Store: the checkpoints of a run. A checkpoint is complete or absent, and a damaged one is never loaded.

All ranks write their share into a hidden folder; each file is synced; the manifest with all sizes and hashes is
written last; one rename commits. Which checkpoint is the newest is found by looking.

    training thread   copy to host memory | the next steps run
    save, rank 0                          | clear, make .tmp | its files     | checkpoint.json, rename, retire |
    save, all ranks                       |                  | write, fsync  |                                 |
    message                                  broadcast: go      collect: what  broadcast: committed, or why not

    checkpoints/.step_00000008.tmp/      a save under way; after a kill the next save removes it
    checkpoints/step_00000008/           complete
    checkpoints/.step_00000005.retired/  being deleted; after a kill the next save removes it
"""

import json
import platform
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from data_shards.files import atomic
from data_shards.files.history import entry
from data_shards.files.quoting import cut
from trainer.checkpoint import layout, names, reading
from trainer.checkpoint.choice import NEWEST, first_readable
from trainer.checkpoint.manifest import FileRecord, Manifest, write_manifest
from trainer.checkpoint.retention import Complete, kept
from trainer.checkpoint.state import Checkpointed
from trainer.checkpoint.tensor_file import OpenTensors, write
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.run_state import PassedOver, RunState

_RETRY_SECONDS = 60.0
"""Time until a save that failed is tried again. At once, a full disk would stop every step for another copy."""
_PASSED_OVER = "passed_over.json"
"""Beside the checkpoints and not in them: an older one knows nothing of the batches that were met after its save."""
_SENTENCE = 1000
"""Most characters of a rank's sentence on a write that failed: World.collect sends messages of 4 KiB."""


@dataclass(frozen=True)
class SaveReport:
    """The result of a save."""

    step: int
    """The step of the saved state."""
    wait_seconds: float
    """The time for which the save stopped the training."""
    seconds: float
    """The time from the call to the commit."""
    num_bytes: int
    """The size of all ranks' files."""
    error: str = ""
    """Why nothing was written, such as a full disk; empty where it was."""


@dataclass(frozen=True)
class Loaded:
    """The result of a load."""

    state: RunState
    path: Path
    damaged: tuple[str, ...]
    """Sentences on newer checkpoints that were skipped."""


class Store:
    """The checkpoints folder of a run. Construction, save, load and wait: Collective."""

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        world: World,
        *,
        identity: dict[str, Any] | None = None,
        timeout_seconds: float = 600.0,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        # Raises where a later attempt owns the run. Asked before every change of the folder as a whole, since a later
        # attempt may begin between the files of a save and its commit.
        self._guard = guard
        self._config = config
        self._world = world
        # The background thread's exchanges must not mix with those of the training.
        self._twin = world.twin(timeout_seconds)
        self._identity = identity or {}
        self._versions = {
            "python": platform.python_version(),
            # Looked up in files of the environment, once and by the rank that writes them down.
            **{name: version(name) for name in ("torch", "deepspeed") if world.is_first},
        }
        self._complete = Complete()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[SaveReport] | None = None
        self._reports: list[SaveReport] = []
        self._passed_over = PassedOver()
        self._next_save_time = self._time_after(config.save_every_minutes * 60)

    def is_due(self, step: int, *, is_scored: bool = False) -> bool:
        """Return whether this rank would save after this step; the clock is its own, so that ranks must agree."""
        return self.is_planned(step, is_scored=is_scored) or time.monotonic() >= self._next_save_time

    def is_planned(self, step: int, *, is_scored: bool = False) -> bool:
        """Return whether every rank knows, without asking the others, that all save after this step."""
        every = self._config.save_every_steps
        return (is_scored and self._config.keep_best) or (every > 0 and step % every == 0)

    def save(self, engine: Checkpointed, state: RunState, *, score: float | None = None) -> None:
        """Save a state; in the background where the config says so, after a save that is still running."""
        started = time.monotonic()
        # The copy overwrites the host memory that the save before it may still be writing from.
        self.wait()
        tensors = engine.snapshot()
        # Now, like the tensors: the counters of the engine move while the save is written.
        manifest = Manifest(
            state=state,
            engine=engine.progress(),
            identity=self._identity,
            world_size=self._world.world_size,
            files={},
            score=score,
            versions=self._versions,
        )
        self._next_save_time = self._time_after(self._config.save_every_minutes * 60)
        waited = time.monotonic() - started
        self._pending = self._thread.submit(self._write, tensors, manifest, started, waited)
        if not self._config.asynchronous:
            self.wait()

    def wait(self) -> None:
        """Wait for a save that is running; raises what its exchange with the other ranks raised."""
        if self._pending is not None:
            report, self._pending = self._pending.result(), None
            if report.error:
                self._next_save_time = min(self._next_save_time, time.monotonic() + _RETRY_SECONDS)
            self._reports.append(report)

    def reports(self) -> list[SaveReport]:
        """Return the saves that ended since the last call."""
        if self._pending is not None and self._pending.done():
            self.wait()
        reports, self._reports = self._reports, []
        return reports

    def newest(self) -> Path | None:
        """Return the newest checkpoint that was committed, by rank 0's sight. Collective."""
        return self._world.from_first(lambda: next(reversed(names.committed(self._folder)), None))

    def load(self, engine: Checkpointed) -> Loaded | None:
        """Bring the engine to the newest checkpoint that is whole; None where there is none at all.

        Raises ValueError on all ranks where every checkpoint is damaged or belongs to other data.
        """
        self.wait()
        self._complete = Complete()
        if self.newest() is None:
            return None
        path, manifest, damaged = first_readable(
            self._folder, NEWEST, self._world, lambda path: reading.verified(path, self._world)
        )
        noted = self._world.from_first(lambda: entry(PassedOver, self._folder / _PASSED_OVER))
        self._passed_over = self._passed_over.joined(noted or PassedOver())
        self._restore(engine, path, manifest)
        return Loaded(manifest.state.passing_over(self._passed_over), path, damaged)

    def pass_over(self, passed: PassedOver) -> str:
        """Record the batches that the run skips, for this process and every restart; return why it failed, if so.

        Collective. `load` gives it to the state, whatever the checkpoint knows.
        """
        self.wait()
        self._passed_over = self._passed_over.joined(passed)
        content = json.dumps(asdict(self._passed_over)) + "\n"
        written = partial(atomic.write, self._folder / _PASSED_OVER, content)
        return self._world.from_first(lambda: self._attempted(written))

    def close(self) -> None:
        """Wait for a save that is running and end the thread."""
        self.wait()
        self._thread.shutdown()

    def _write(
        self, tensors: dict[str, dict[str, Tensor]], manifest: Manifest, started: float, waited: float
    ) -> SaveReport:
        """Write and commit in the background. All ranks fail or none: the error of one is sent to all."""
        beside = self._folder / f".{names.name_of(manifest.state.step)}.tmp"
        # Rank 0 makes the folder before any rank writes into it. If it cannot, all ranks skip the save.
        error = self._twin.broadcast(self._attempted(lambda: self._clear(beside)) if self._world.is_first else "")
        num_bytes = 0
        if not error:
            # One message a rank tells rank 0 what was written, and one tells each rank whether it is a checkpoint.
            outcomes = self._twin.collect(self._write_share(beside, tensors))
            error, num_bytes = self._twin.broadcast(self._finished(beside, manifest, outcomes))
        return SaveReport(manifest.state.step, waited, time.monotonic() - started, num_bytes, error)

    def _finished(
        self, beside: Path, manifest: Manifest, outcomes: list[dict[str, FileRecord] | str]
    ) -> tuple[str, int]:
        """Commit on rank 0 what all ranks have written; return why not, and how many bytes it has."""
        if not self._world.is_first:
            return "", 0
        files = {name: record for outcome in outcomes if isinstance(outcome, dict) for name, record in outcome.items()}
        error = "; ".join(outcome for outcome in outcomes if isinstance(outcome, str))
        # A file that one rank could not write makes it no checkpoint: then nothing is renamed.
        error = error or self._attempted(lambda: self._commit(beside, replace(manifest, files=files)))
        if error:
            # On a full disk the next try needs the space of this one.
            self._attempted(lambda: shutil.rmtree(beside, ignore_errors=True))
        return error, sum(record.num_bytes for record in files.values())

    def _attempted(self, work: Callable[[], None]) -> str:
        """Do what rank 0 alone does; return why it failed."""
        try:
            self._guard()
            work()
        # What the disk says, and no more: that a later attempt has begun must end this process.
        except OSError as problem:
            return str(problem)
        return ""

    def _clear(self, beside: Path) -> None:
        """Remove what killed saves left and make the folder of this one."""
        for left in self._folder.glob(".step_*"):
            atomic.remove(left)
        beside.mkdir(parents=True)

    def _write_share(self, beside: Path, tensors: dict[str, dict[str, Tensor]]) -> dict[str, FileRecord] | str:
        records = {}
        try:
            for kind, by_name in tensors.items():
                if by_name:
                    name = layout.file_name(kind, self._world.rank, self._world.world_size)
                    records[name] = write(beside / name, by_name)
        # Returned and not raised: rank 0 waits in `collect` for a message of this rank, whatever became of its files.
        except OSError as problem:
            return cut(f"rank {self._world.rank}: {problem}", _SENTENCE)
        return records

    def _commit(self, beside: Path, manifest: Manifest) -> None:
        write_manifest(beside, manifest)
        final = self._folder / names.name_of(manifest.state.step)
        if final.exists() or final.is_symlink():
            # A damaged one of this step, which the load skipped. rename() does not replace a folder that has files.
            final.rename(self._folder / f".{final.name}.replaced")
        atomic.rename(beside, final)
        self._complete.add(final, manifest.score)
        self._retire(manifest.state.step)

    def _retire(self, newest_step: int) -> None:
        """Delete what is not kept; the newest is complete by now. A half deleted one is no longer seen.

        A damaged one is of no use and does not count; it goes when all that are kept are newer.
        """
        folders = {names.step_of(path): path for path in names.committed(self._folder)}
        complete = self._complete.scores(folders.values())
        scores = {step: score for step, score in complete.items() if step <= newest_step}
        keep = kept(scores, self._config)
        for step in folders.keys() - keep:
            # rmtree refuses a link, and what a link leads to is not this run's.
            if (step in scores or step < min(keep)) and not folders[step].is_symlink():
                # Hidden by one rename first: a kill between two files would else leave a checkpoint that looks damaged.
                hidden = self._folder / f".{folders[step].name}.retired"
                folders[step].rename(hidden)
                shutil.rmtree(hidden)

    def _restore(self, engine: Checkpointed, path: Path, manifest: Manifest) -> None:
        if problem := layout.other_data(manifest.identity, self._identity):
            raise ValueError(f"{path}: {problem}; use another --run folder")
        # All ranks have the headers of all files, so all refuse alike, before the engine has changed anything.
        files = reading.opened(path, manifest, self._world)
        sources = {(name.partition("-")[0], tensor): file for name, file in files.items() for tensor in file.names()}
        for kind, shapes in engine.shapes().items():
            there = {tensor: file.shape(tensor) for (of, tensor), file in sources.items() if of == kind}
            if difference := layout.difference(there, shapes):
                other = "another network" if there else "another optimizer"
                raise ValueError(
                    f"{path}: was written by a run of {other}: of {kind}, {difference}; "
                    f"take the {other.removeprefix('another ')} that wrote it, or another folder"
                )

        engine.restore(OpenTensors(path, sources), manifest.engine)

    def _time_after(self, seconds: float) -> float:
        return time.monotonic() + seconds if seconds > 0 else float("inf")
