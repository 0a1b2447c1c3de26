"""The ranges of numbers in the configuration of training. Standard library only."""

import math
from collections.abc import Iterator


def at_least(config: object, least: float, *names: str) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for each of these keys of a section that is below `least` or no finite number."""
    for name in names:
        # In this form it refuses NaN too, which is neither below nor above anything.
        if not least <= getattr(config, name) < math.inf:
            yield name, f"must be a number and at least {least:g}, got {getattr(config, name)}"


def within(config: object, least: float, most: float, *names: str) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for each of these keys of a section that is not between the two."""
    for name in names:
        if not least <= getattr(config, name) <= most:
            yield name, f"must lie between {least:g} and {most:g}, got {getattr(config, name)}"
