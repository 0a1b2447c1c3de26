"""Kept are the last n, every k-th and the best; never nothing."""

from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoint.retention import best, kept
from trainer.config import CheckpointConfig

ACCURACIES = st.dictionaries(st.integers(0, 10_000), st.none() | st.floats(0, 1), min_size=1, max_size=20)


def test_the_last_the_round_and_the_best_are_kept() -> None:
    scores = {100: 0.5, 150: 0.9, 200: 0.7, 250: None, 300: 0.8}
    assert kept(scores, CheckpointConfig(keep_last=1)) == {300}
    assert kept(scores, CheckpointConfig(keep_last=2, keep_every_steps=100)) == {100, 200, 250, 300}
    assert kept(scores, CheckpointConfig(keep_last=1, keep_best=True)) == {150, 300}


@given(ACCURACIES, st.integers(1, 5), st.integers(0, 50), st.booleans())
def test_the_newest_is_always_kept_and_nothing_is_invented(
    scores: dict[int, float | None], last: int, every: int, best: bool
) -> None:
    keep = kept(scores, CheckpointConfig(keep_last=last, keep_every_steps=every, keep_best=best))
    assert max(scores) in keep
    assert keep <= scores.keys()
    assert len(keep) >= min(last, len(scores))


def test_of_equal_scores_the_newest_is_the_best_and_what_is_no_number_never() -> None:
    nan = float("nan")
    assert best({1: 0.5, 2: 0.75, 3: 0.75, 4: nan, 5: None}) == 3
    assert best({1: -2.0, 2: -1.0, 3: -3.0}) == 2
    assert best({1: None, 2: nan}) is None
    assert best({}) is None
    assert kept({1: None, 2: nan, 3: None}, CheckpointConfig(keep_last=1, keep_best=True)) == {3}
