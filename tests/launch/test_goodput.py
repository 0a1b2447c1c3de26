"""The goodput's arithmetic, against Daly's formula and against seeded failures."""

import math
import random

import pytest

from launch.planning.goodput import Faults, best_interval, goodput

HOUR = 3600.0


def simulated(faults: Faults, interval: float, *, seed: int, periods: int) -> float:
    """Return the share of the time that made lasting work: a run that is played through failure by failure."""
    draw = random.Random(seed)
    clock, done, started = 0.0, 0, 0.0
    period = interval + faults.stall_seconds
    failure = draw.expovariate(1 / faults.mean_seconds)
    committed = 0
    while committed < periods:
        ready = clock + period
        # The save before this period counts once it is written, which is while this period runs.
        written = clock + faults.commit_seconds if done > committed else -math.inf
        if failure < ready:
            committed = done if written <= failure else committed
            done = committed
            clock = failure + faults.restart_seconds
            failure = clock + draw.expovariate(1 / faults.mean_seconds)
            continue
        committed, done, clock = done, done + 1, ready
        started = ready
    return committed * interval / started


@pytest.mark.parametrize(
    "faults",
    [
        Faults(15 * HOUR, stall_seconds=30, commit_seconds=0, restart_seconds=300),
        Faults(1 * HOUR, stall_seconds=60, commit_seconds=0, restart_seconds=600),
        Faults(2 * HOUR, stall_seconds=2, commit_seconds=120, restart_seconds=300),
        Faults(0.5 * HOUR, stall_seconds=1, commit_seconds=300, restart_seconds=60),
    ],
)
def test_goodput_is_that_of_failures_played_through(faults: Faults) -> None:
    interval = best_interval(faults, 1.0)
    for factor in (1.0, 3.0):
        found = goodput(faults, factor * interval)
        # 40,000 periods: the mean of the draws is within half a percent.
        assert found.useful == pytest.approx(simulated(faults, factor * interval, seed=1, periods=40_000), rel=0.01)


def test_the_shares_of_the_time_add_up_to_one() -> None:
    found = goodput(Faults(HOUR, 20, 50, 300), 600)
    assert found.useful + found.saves + found.lost_work + found.restarts == pytest.approx(1)
    assert min(found.useful, found.saves, found.lost_work, found.restarts) > 0


def test_the_best_interval_is_that_of_a_scan_of_simulations() -> None:
    faults = Faults(HOUR, stall_seconds=60, commit_seconds=0, restart_seconds=300)
    best = best_interval(faults, 1.0)
    scanned = {
        factor: simulated(faults, factor * best, seed=3, periods=60_000)
        for factor in (0.4, 0.6, 0.8, 1, 1.25, 1.6, 2.5)
    }
    assert max(scanned, key=lambda factor: scanned[factor]) in (0.8, 1, 1.25)


@pytest.mark.parametrize(("stall", "mean"), [(1.0, 1e6), (30.0, 5e4), (60.0, 3600.0), (600.0, 3600.0)])
def test_the_best_interval_is_dalys(stall: float, mean: float) -> None:
    found = best_interval(Faults(mean, stall, 0, 120), 0.001)
    # Daly's condition for the minimum.
    assert math.exp((found + stall) / mean) * (1 - found / mean) == pytest.approx(1, rel=1e-6)
    if stall < mean / 1000:
        assert found == pytest.approx(math.sqrt(2 * stall * mean), rel=0.02)


def test_no_save_begins_before_the_last_is_written_and_none_within_a_step() -> None:
    assert best_interval(Faults(HOUR, 0.01, 400, 60), 1.0) >= 400 * 0.999
    assert best_interval(Faults(HOUR, 1e-9, 0, 60), 7.0) >= 7 * 0.999


def test_saves_that_take_longer_than_failures_need_to_come_leave_nothing_and_no_error() -> None:
    found = goodput(Faults(10, 1e6, 1e6, 60), best_interval(Faults(10, 1e6, 1e6, 60), 1.0))
    assert 0 <= found.useful < 1e-3
