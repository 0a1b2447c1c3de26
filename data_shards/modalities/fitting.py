"""Sizes that suit the samples of a data set: what most of them have, within what a small network reads."""

from collections.abc import Sequence

import numpy as np

_STEPS = ((128, 32), (32, 8), (8, 4))
"""From which length on a side is a multiple of what: then patches of several sizes divide it."""


def side(lengths: Sequence[int], most: int) -> int:
    """Return a length such as most of these, at most `most`, that patches divide."""
    # The median: one huge sample must not enlarge all others.
    middle = max(1, min(int(np.median(lengths)), most))
    step = next((step for least, step in _STEPS if middle >= least), 1)
    return middle // step * step


def longest(lengths: Sequence[int], most: int, step: int) -> int:
    """Return a multiple of `step` that holds nine of ten, at most `most`."""
    return min(most, -(-max(1, int(np.quantile(lengths, 0.9))) // step) * step)
