"""The choice of a checkpoint by name (newest, best or the number of a step), and of its weights (trained or ema)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from torch import Tensor

from trainer.checkpoint import layout, reading
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import committed, complete, name_of, step_of
from trainer.checkpoint.retention import best
from trainer.distributed.world import World
from trainer.ema_config import EMA, TRAINED

NEWEST, BEST = "newest", "best"

T = TypeVar("T")
_READS: Mapping[str, Callable[[Path, World], dict[str, Tensor] | None]] = MappingProxyType(
    {TRAINED: reading.weights, EMA: reading.average}
)


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint."""

    step: int
    """The step after which they were saved."""
    tensors: dict[str, Tensor]
    """Weights and buffers by name."""
    which: str
    """TRAINED, or EMA for their moving average."""
    passed_over: tuple[str, ...]
    """Sentences on newer checkpoints that could not be read."""


def read_weights(folder: Path, which: str, world: World, weights: str = TRAINED) -> Weights:
    """Return the weights of a run's "newest" or "best" checkpoint, or of that of a step. Collective.

    With `weights` EMA their moving average. ValueError on all ranks where there is none. A damaged newest one gives way
    to the one before it, and one that the run's retention deletes meanwhile to a newer one; who names a checkpoint gets
    no other.
    """
    _refuse_unknown(weights)
    path, tensors, passed_over = first_readable(folder, which, world, lambda path: _READS[weights](path, world))
    if tensors is None:
        raise ValueError(
            f"{path}: holds no moving average of the weights; a run with ema.decay above 0 keeps one from its step "
            f"ema.every_steps on. Take --weights {TRAINED}, or a later checkpoint"
        )
    return Weights(step_of(path), tensors, weights, passed_over)


def refuse_absent(folder: Path, which: str, weights: str) -> None:
    """Raise ValueError where `read_weights` would find no checkpoint, as far as the names of their folders tell."""
    _refuse_unknown(weights)
    if _next(folder, which, set()) is None:
        raise ValueError(_refusal(folder, which, [], set()))


def _refuse_unknown(weights: str) -> None:
    if weights not in _READS:
        raise ValueError(f"--weights {weights}: expected {' or '.join(_READS)}")


def first_readable(
    folder: Path, which: str, world: World, read: Callable[[Path], T]
) -> tuple[Path, T, tuple[str, ...]]:
    """Return the checkpoint asked for, what `read` makes of it, and sentences on those skipped. Collective.

    `read` raises ValueError, on any rank or on all, where a checkpoint is not whole.
    """
    # A checkpoint whose score cannot be read may have been the best: it is reported, whichever is taken.
    passed_over = world.from_first(lambda: _of_unknown_score(folder) if which == BEST else [])
    tried: set[Path] = set()
    while path := world.from_first(lambda: _next(folder, which, tried)):
        tried.add(path)
        result, problem = None, ""
        try:
            result = read(path)
        except ValueError as error:
            problem = str(error)
        # A read can fail on one rank alone. All learn of it before any of them takes what it has read.
        problems = sorted({sentence for sentence in world.gather(problem) if sentence})
        if not problems:
            return path, result, tuple(passed_over)  # type: ignore[return-value]  # it was read
        # A run that still trains deletes its older checkpoints, perhaps this one: no damage, and a newer one is there.
        is_gone = world.from_first(lambda: not path.exists())
        passed_over += [f"{path}: was deleted while it was read"] if is_gone and which != NEWEST else []
        passed_over += [] if is_gone else problems
        if which != NEWEST:
            break
    raise ValueError(world.from_first(lambda: _refusal(folder, which, passed_over, tried)))


def _next(folder: Path, which: str, tried: set[Path]) -> Path | None:
    """Return the next candidate. The folder is read again each time, because a run may be writing."""
    return next((path for path in _candidates(folder, which) if path not in tried), None)


def _candidates(folder: Path, which: str) -> Iterator[Path]:
    if which == NEWEST:
        yield from reversed(committed(folder))
    elif which == BEST:
        # By the manifests alone, whether or not the files are whole: a damaged best one is reported and not replaced by
        # the next.
        step = best(layout.scores(committed(folder)))
        yield from [folder / name_of(step)] if step is not None else []
    # Folders have at most 18 digits, and int() raises at some thousand digits.
    elif which.isdecimal() and len(which) < 19:
        yield from (path for path in committed(folder) if step_of(path) == int(which))


def _of_unknown_score(folder: Path) -> list[str]:
    """Return sentences on the checkpoints whose score is not known."""
    sentences = []
    for path in committed(folder):
        try:
            read_manifest(path)
        except ValueError as error:
            sentences.append(str(error))
    return sentences


def _refusal(folder: Path, which: str, passed_over: list[str], tried: set[Path]) -> str:
    steps = ", ".join(str(step_of(path)) for path in complete(folder) if path not in tried)
    if passed_over and which == NEWEST:
        return f"{folder}: no checkpoint is whole ({'; '.join(passed_over)}); restore one of them, or train again"
    if passed_over:
        return f"{'; '.join(passed_over)}; --checkpoint can name {NEWEST} or one of the steps {steps}"
    if not steps:
        return f"{folder}: holds no complete checkpoint yet; train further"
    if which == BEST:
        return (
            f"{folder}: no checkpoint was evaluated when it was saved, so that none is the best; name one of the steps "
            f"{steps}, and set train.evaluate_every_steps and checkpoint.keep_best for the next run"
        )
    return f"--checkpoint {which}: expected {NEWEST}, {BEST} or one of the steps that are there: {steps}"
