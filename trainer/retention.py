"""Which checkpoints are kept, and which is the best: pure functions of their steps and scores."""

import math

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
    measured = {step: score for step, score in scores.items() if score is not None and not math.isnan(score)}
    return max(measured, key=lambda step: (measured[step], step)) if measured else None
