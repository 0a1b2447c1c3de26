"""Retention: which checkpoints are kept and which is the best, by step and score; which of them are complete."""

import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trainer.checkpoint import layout, names
from trainer.config import CheckpointConfig


def kept(scores: dict[int, float | None], config: CheckpointConfig) -> set[int]:
    """Return the steps to keep of {step: score or None}: the last n, every k-th, and the best where asked for."""
    steps = sorted(scores)
    keep = set(steps[-config.keep_last :])
    if config.keep_every_steps:
        keep |= {step for step in steps if step % config.keep_every_steps == 0}
    if config.keep_best and (of_best := best(scores)) is not None:
        keep.add(of_best)
    return keep


def best(scores: dict[int, float | None]) -> int | None:
    """Return the step with the highest score; of equal ones the newest, None where none has a score."""
    # max() of a list that begins with NaN is NaN.
    measured = {step: score for step, score in scores.items() if score is not None and not math.isnan(score)}
    return max(measured, key=lambda step: (measured[step], step)) if measured else None


Stamp = tuple[int, int, int]


class Complete:
    """Which checkpoints are complete, and their scores.

    All files of a checkpoint are checked at its first use, and again whenever its folder or manifest has changed:
    a check at every save would read each file of each kept checkpoint.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[Stamp, float | None]] = {}

    def add(self, checkpoint: Path, score: float | None) -> None:
        """Take it from who has just written it that a checkpoint is complete."""
        self._seen[checkpoint] = _stamp(checkpoint), score

    def scores(self, checkpoints: Iterable[Path]) -> dict[int, float | None]:
        """Return by its step the score of every complete one of these; None where it was not evaluated."""
        found: dict[int, float | None] = {}
        for path in checkpoints:
            with suppress(OSError):  # deleted meanwhile
                if path not in self._seen or self._seen[path][0] != _stamp(path):
                    self._seen.pop(path, None)
                    # Before the check: what changes during the check is checked again next time.
                    stamp = _stamp(path)
                    for score in layout.scores([] if names.problem(path) else [path]).values():
                        self._seen[path] = stamp, score
                if path in self._seen:
                    found[names.step_of(path)] = self._seen[path][1]
        return found


def _stamp(checkpoint: Path) -> Stamp:
    """Return a value that changes if a checkpoint's files change or its manifest is written again."""
    manifest = (checkpoint / names.MANIFEST).lstat()
    return checkpoint.lstat().st_mtime_ns, manifest.st_mtime_ns, manifest.st_size
