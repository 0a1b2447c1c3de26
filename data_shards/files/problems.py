"""Problems of a configuration: the key, and one sentence with what was expected, what was found and the remedy."""

from collections.abc import Iterator

Problem = tuple[str, str]
"""Key relative to the part, and a sentence with what was expected, what came and what to do."""
MOST_BATCHES_AHEAD = 10_000
"""The slots of each are computed before the first step."""


def at_least(minimum: float, fields: dict[str, float]) -> Iterator[Problem]:
    """Yield a problem for each field below the minimum."""
    for key, value in fields.items():
        # Not `<`, here and below: NaN is neither less nor more, and must be refused as well.
        if not value >= minimum:
            yield key, f"must be at least {minimum}, got {value}"


def at_most(maximum: float, fields: dict[str, float]) -> Iterator[Problem]:
    """Yield a problem for each field above the maximum."""
    for key, value in fields.items():
        if not value <= maximum:
            yield key, f"must be at most {maximum}, got {value}"


def probabilities(fields: dict[str, float]) -> Iterator[Problem]:
    """Yield a problem for each field that is not a probability."""
    for key, value in fields.items():
        if not 0 <= value <= 1:
            yield key, f"must be from 0 to 1, got {value}"
