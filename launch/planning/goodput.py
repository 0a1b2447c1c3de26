"""Goodput: the time that remains after saves, failures and restarts, and the best interval between saves.

Failures come at any time alike, with a mean time between them (exponential). A save holds the training up for a while,
and counts once all of it is on the disk; a failure throws the run back to the last save that counts. The arithmetic is
Daly's (2006), whose first order is Young's square root of 2 x save x mean time between failures.
"""

import math
from dataclasses import dataclass

_MOST = 300.0
"""Beyond that nothing is left of a run, and exponentials overflow."""


@dataclass(frozen=True)
class Faults:
    """The causes of lost time in a run."""

    mean_seconds: float
    """Mean time between failures of the whole job."""
    stall_seconds: float
    """The time for which a save stops the training."""
    commit_seconds: float
    """The time of the background write after that. Until its end, a failure loses the work before the save too."""
    restart_seconds: float
    """The time from a failure to the first step of the next start."""


@dataclass(frozen=True)
class Goodput:
    """How a run spends its time; the four fractions add up to one."""

    interval_seconds: float
    """The training time between two saves."""
    useful: float
    """Share of the time that made steps which lasted."""
    saves: float
    """Share in which saves held the training up."""
    lost_work: float
    """Share in which steps were made that a failure threw away, and their saves."""
    restarts: float
    """Share from failures to the next first step."""


def best_interval(faults: Faults, step_seconds: float) -> float:
    """Return the seconds of training between two saves that leave most: at least a step, and the writing of a save."""
    # Where what is useful is most, exp(x + stall/mean) (1 - x) = 1 for x = interval/mean; its logarithm falls in x.
    # Restarts take the same time whatever the interval, and drop out.
    save = faults.stall_seconds / faults.mean_seconds
    lowest, highest = 0.0, 1.0
    # Halved so often, the interval is below what fp64 tells apart.
    for _ in range(100):
        middle = (lowest + highest) / 2
        is_left = middle < 1 and middle + save + math.log1p(-middle) > 0
        lowest, highest = (middle, highest) if is_left else (lowest, middle)
    return max(highest * faults.mean_seconds, faults.commit_seconds, step_seconds)


def goodput(faults: Faults, interval_seconds: float) -> Goodput:
    """Return where the time goes with such an interval, at least as long as a save is written: means of a long run."""
    period = interval_seconds + faults.stall_seconds
    # For each period that lasts. A failure while a save is written throws back what came before that save, too.
    failures = math.exp(min(faults.commit_seconds / faults.mean_seconds, _MOST)) * math.expm1(
        min(period / faults.mean_seconds, _MOST)
    )
    working, restarting = failures * faults.mean_seconds, failures * faults.restart_seconds
    whole = working + restarting
    # Everything as a share of the mean time that one period takes, failures and restarts included.
    return Goodput(
        interval_seconds,
        useful=interval_seconds / whole,
        saves=faults.stall_seconds / whole,
        lost_work=(working - period) / whole,
        restarts=restarting / whole,
    )
