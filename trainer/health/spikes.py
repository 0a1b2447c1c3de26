"""Spikes: decides which batches to skip after a rollback. A pure function of state and loss, equal on all ranks."""

import math
import statistics

from trainer.config import HealthConfig
from trainer.run_length import LEAST_WINDOW
from trainer.run_state import RunState

_MAD_TO_SIGMA = 1.4826
"""The standard deviation of a normal distribution divided by its median absolute deviation."""


def offending(before: RunState, state: RunState, loss: float, config: HealthConfig) -> tuple[int, ...]:
    """Return the batches that made the newest steps go wrong, or nothing; `before` is the state before this step."""
    if state.skipped_in_a_row >= config.max_skipped_in_a_row:
        return tuple(state.batch_of(step) for step in range(state.step - state.skipped_in_a_row, state.step))
    is_judged = config.spike_score > 0 and not state.skipped_in_a_row
    # By the losses before it: in its own window a spike would raise the deviation that it is measured by.
    is_spike = is_judged and robust_score(loss, before.recent_losses) > config.spike_score
    return (before.batch_index,) if is_spike else ()


def robust_score(loss: float, window: tuple[float, ...]) -> float:
    """Return by how many robust standard deviations a loss lies above the median of a window; 0 for a short window."""
    if len(window) < LEAST_WINDOW or not math.isfinite(loss):
        return 0.0
    # Of medians, since one outlier in the window must not hide the next.
    median = statistics.median(window)
    deviation = statistics.median(abs(value - median) for value in window) * _MAD_TO_SIGMA
    # A window of equal losses has no deviation; one part in a million stands in for rounding.
    return (loss - median) / max(deviation, abs(median) * 1e-6, 1e-12)
