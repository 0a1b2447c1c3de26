"""Which checkpoints are kept: a pure function of their steps and scores."""

from trainer.config import CheckpointConfig


def kept(scores: dict[int, float | None], config: CheckpointConfig) -> set[int]:
    """Return the steps to keep of {step: score or None}: the last n, every k-th, and the best where asked for."""
    steps = sorted(scores)
    keep = set(steps[-config.keep_last :])
    if config.keep_every_steps:
        keep |= {step for step in steps if step % config.keep_every_steps == 0}
    measured = {step: score for step, score in scores.items() if score is not None}
    if config.keep_best and measured:
        # Of equal ones the newest.
        keep.add(max(measured, key=lambda step: (measured[step], step)))
    return keep
