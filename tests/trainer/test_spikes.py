"""Spikes are judged against the median of a window; steps that were skipped in a row name their batches."""

from trainer.config import HealthConfig
from trainer.health.spikes import offending, robust_score
from trainer.run_state import RunState


def test_the_score_counts_robust_deviations_above_the_median() -> None:
    window = tuple(float(value) for value in range(1, 12))  # median 6, median absolute deviation 3
    assert robust_score(6.0, window) == 0.0
    assert abs(robust_score(6.0 + 3 * 1.4826 * 4, window) - 4) < 1e-9
    assert robust_score(-100.0, window) < 0


def test_a_short_window_judges_nothing_and_a_still_one_everything() -> None:
    assert robust_score(1e9, (1.0,) * 9) == 0.0
    assert robust_score(1.1, (1.0,) * 10) > 1000


def test_one_outlier_in_the_window_does_not_hide_the_next() -> None:
    window = (*(1.0 + index / 100 for index in range(20)), 1e6)
    assert robust_score(1e6, window) > 1000


def test_the_batches_of_the_newest_skipped_steps_are_named_once_there_are_enough() -> None:
    config = HealthConfig(max_skipped_in_a_row=2)
    first = RunState(step=4, skipped_batches=(1,))
    second = first.after(is_skipped=True)
    third = second.after(is_skipped=True)
    assert offending(first, second, 0.0, config) == ()
    assert offending(second, third, 0.0, config) == (5, 6)
    assert offending(third, third.after(), 0.0, config) == ()


def test_a_spike_names_its_batch_only_where_spikes_are_watched() -> None:
    before = RunState(step=20, recent_losses=(1.0, 1.1) * 10)
    after = before.after(50.0, window=20)
    assert offending(before, after, 50.0, HealthConfig(spike_score=10.0)) == (20,)
    assert offending(before, after, 50.0, HealthConfig()) == ()


def test_a_loss_is_judged_by_the_losses_before_it_alone() -> None:
    # Nine losses judge nothing; with itself among them the tenth would be judged, and by a window that it is in.
    before = RunState(step=9, recent_losses=(1.0,) * 9)
    assert offending(before, before.after(50.0, window=20), 50.0, HealthConfig(spike_score=10.0)) == ()
    before = RunState(step=10, recent_losses=(1.0,) * 10)
    assert offending(before, before.after(50.0, window=20), 50.0, HealthConfig(spike_score=10.0)) == (10,)
