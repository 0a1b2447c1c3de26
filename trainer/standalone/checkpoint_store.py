"""CheckpointStore: the crash-safe checkpoints of a run, around a training loop of one's own.

save(step)    module, optimizer, `also` --> host memory --> in the background: files, manifest, one rename
load()        the newest that is whole --> module and optimizer, then `also`
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from trainer.checkpoint.state import Checkpointed
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.optim.json_state import packed, unpacked
from trainer.optim.ownership import Saved
from trainer.run_state import EngineState, RunState
from trainer.standalone.deepspeed_state import DeepSpeedState, is_deepspeed
from trainer.standalone.plain_state import PlainState


class Stateful(Protocol):
    """What has a state of its own that fits into JSON: a ShardLoader, a scheduler of learning rates."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take over a state."""
        ...


@dataclass(frozen=True)
class Restored:
    """The result of a load."""

    step: int
    """The step that was given to `save`."""
    path: Path
    """The checkpoint's folder."""
    damaged: tuple[str, ...]
    """Sentences on newer checkpoints that were skipped."""
    unused: tuple[str, ...]
    """What the checkpoint holds besides, and this store was not given: "optimizer", or names of `also`."""


class CheckpointStore:
    """The checkpoints of a loop: each is complete or absent, hashed, and never loaded where it is damaged.

    For a module and its optimizer, alike on all ranks where there are several (under DistributedDataParallel too), or
    for an engine that deepspeed.initialize returned, at any ZeRO stage. It loads at another number of ranks, an
    engine's at another stage too. Whatever else decides what comes next goes into `also`: the loader, the scheduler.
    Random numbers are not kept: seed them by the step. Construction and every method: Collective.
    """

    def __init__(
        self,
        folder: Path | str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        also: Mapping[str, Stateful] | None = None,
        keep_last: int = 3,
        keep_every_steps: int = 0,
        asynchronous: bool = True,
        timeout_seconds: float = 600.0,
    ) -> None:
        """ValueError where a state cannot be kept.

        `keep_last` checkpoints are kept, and for ever those at multiples of `keep_every_steps`. `asynchronous` saves
        copy to host memory and write in the background. The folder is one that all ranks see.
        """
        if keep_last < 1 or keep_every_steps < 0:
            raise ValueError(
                f"keep_last = {keep_last} and keep_every_steps = {keep_every_steps}: expected at least 1 and at least 0"
            )
        # A channel of its own: a save in the background must not mix with what the caller's loop exchanges.
        world = World.of_torch(timeout_seconds)
        # By the module alone: an engine is a module, and brings its optimizer with it.
        if is_deepspeed(module):
            if optimizer is not None:
                raise ValueError("optimizer: an engine of DeepSpeed's has its own; leave it out")
            inner: Checkpointed = DeepSpeedState(module, world)
        else:
            inner = PlainState(module, optimizer, world)
        self._state = _WithOthers(inner, also or {})
        config = CheckpointConfig(keep_last=keep_last, keep_every_steps=keep_every_steps, asynchronous=asynchronous)
        self._store = Store(Path(folder), config, world, timeout_seconds=timeout_seconds)

    def save(self, step: int) -> None:
        """Save the state after `step` steps; in the background where the store does so, after a save that still runs.

        OSError if this save or the one before it could not be written: the newest complete checkpoint is as it was.
        """
        if step < 0:
            raise ValueError(f"step = {step}: expected 0 or more")
        # A failure of the save before is raised now, at the latest: the caller may count on that checkpoint.
        self.wait()
        # Of a run's state the step alone: whatever else decides a loop of one's own is in `also`.
        self._store.save(self._state, RunState(step=step))
        self._raise_failures()

    def load(self) -> Restored | None:
        """Bring everything to the newest checkpoint that is whole; None where there is none at all.

        ValueError on all ranks where every checkpoint is damaged, or is of another network or optimizer.
        """
        loaded = self._store.load(self._state)
        if loaded is None:
            return None
        return Restored(loaded.state.step, loaded.path, loaded.damaged, self._state.unused)

    def wait(self) -> None:
        """Wait for a save that still runs; OSError if it could not be written."""
        self._store.wait()
        self._raise_failures()

    def close(self) -> None:
        """Wait for a save that still runs and end the thread; OSError if it could not be written."""
        self._store.close()
        self._raise_failures()

    def _raise_failures(self) -> None:
        for report in self._store.reports():
            if report.error:
                raise OSError(f"step {report.step} was not saved: {report.error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _WithOthers:
    """A state with those of other objects beside it."""

    def __init__(self, inner: Checkpointed, others: Mapping[str, Stateful]) -> None:
        self._inner = inner
        self._others = dict(others)
        self.unused: tuple[str, ...] = ()

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        return self._inner.snapshot()

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        return self._inner.shapes()

    def progress(self) -> EngineState:
        progress = self._inner.progress()
        also = {name: packed(other.state_dict(), f"also[{name!r}]") for name, other in self._others.items()}
        details = {**progress.details, "also": also}
        json.dumps(details)  # here, and not in the background
        return replace(progress, details=details)

    def restore(self, read: Saved, progress: EngineState) -> None:
        also = progress.details.get("also", {})
        # Before the module is changed.
        if missing := [name for name in self._others if name not in also]:
            there = ", ".join(map(repr, also)) or "nothing"
            raise ValueError(
                f"also: the checkpoint has no {', '.join(map(repr, missing))}, only {there}; leave it out of the store "
                "that loads, or take another folder"
            )
        # Before the others: where the module refuses, nothing at all was changed.
        self._inner.restore(read, progress)
        for name, other in self._others.items():
            try:
                other.load_state_dict(unpacked(also[name]))
            except ValueError as error:
                raise ValueError(f"also[{name!r}]: {error}") from error
        own = ["optimizer"] if isinstance(self._inner, PlainState) and self._inner.leaves_optimizer(progress) else []
        self.unused = (*own, *(name for name in also if name not in self._others))
