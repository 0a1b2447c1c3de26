"""Rules: what is said of a network's parameters by patterns of their names, such as `decoder.*=0.1`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite


@dataclass(frozen=True)
class Rule:
    """A pattern of names, with a number for the parameters that have them."""

    pattern: str
    """As fnmatch has it, of names as a checkpoint spells them."""
    number: float | None
    """None where the rule has no number."""

    def matches(self, names: Iterable[str]) -> bool:
        """Return whether one of the names of a parameter fits; tied weights have several."""
        # fnmatch itself folds the case on some systems.
        return any(fnmatchcase(name, self.pattern) for name in names)


def rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Return the rules that are written as PATTERN or PATTERN=NUMBER."""
    parts = [text.rpartition("=") for text in texts]
    return tuple(Rule(before, float(last)) if equals else Rule(last, None) for before, equals, last in parts)


def last_match(found: Sequence[Rule], names: Sequence[str]) -> Rule | None:
    """Return the last rule for a parameter with these names: an exception stands after what it is an exception to."""
    return next((rule for rule in reversed(found) if rule.matches(names)), None)


def step_problems(texts: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for every text that is neither PATTERN nor PATTERN=STEP."""
    for text in texts:
        pattern, equals, step = text.rpartition("=")
        # isdecimal: isdigit also takes ², which int() refuses.
        if not (pattern or not equals) or not (step.isdecimal() or not equals) or not text:
            yield f"expected PATTERN or PATTERN=STEP, such as encoder.* or encoder.*=500, got {text!r}"


def factor_problems(texts: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for every text that is not PATTERN=FACTOR."""
    for text in texts:
        pattern, _, factor = text.rpartition("=")
        if not pattern or not _is_factor(factor):
            yield f"expected PATTERN=FACTOR with a factor of 0 or more, such as encoder.*=0.1, got {text!r}"


def _is_factor(text: str) -> bool:
    try:
        return isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False
