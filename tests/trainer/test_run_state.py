"""The state names the next batch, skips those that are to be skipped, and survives JSON."""

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from data_shards.files.typed_json import typed
from trainer.run_state import PassedOver, RunState


@given(st.sets(st.integers(0, 60), max_size=10))
def test_batches_run_in_order_over_all_that_are_not_skipped(skipped: set[int]) -> None:
    state = RunState().passing_over(PassedOver(tuple(skipped), 1))
    visited = []
    for _ in range(50):
        visited.append(state.batch_index)
        state = state.after()
    assert visited == [index for index in range(200) if index not in skipped][:50]


def test_json_keeps_every_field() -> None:
    state = RunState(step=5, skipped_batches=(2, 3), skipped_steps=1, rollbacks=2)
    assert typed(RunState, json.loads(json.dumps(asdict(state)))) == state


def test_a_step_is_counted_and_a_skipped_one_as_skipped_until_one_is_made() -> None:
    state = RunState(step=4, rollbacks=2).after(is_skipped=True).after(is_skipped=True)
    assert state == RunState(step=6, skipped_steps=2, skipped_in_a_row=2, rollbacks=2)
    assert state.after() == RunState(step=7, skipped_steps=2, rollbacks=2)
    assert state.batch_of(3) == 3
    assert RunState(skipped_batches=(2, 3)).batch_of(1) == 1
    assert RunState(skipped_batches=(2, 3)).batch_of(2) == 4


def test_a_step_of_fp16_whose_scale_was_too_high_counts_as_skipped_and_is_not_blamed_on_its_batch() -> None:
    state = RunState().after(1.0, is_rescaled=True, window=2)
    assert state == RunState(step=1, skipped_steps=1, recent_losses=(1.0,))


def test_losses_of_the_window_are_the_newest_and_none_without_one() -> None:
    state = RunState().after(1.0, window=2).after(2.0, window=2).after(3.0, window=2)
    assert state.recent_losses == (2.0, 3.0)
    assert state.after(9.0, is_skipped=True, window=2).recent_losses == (2.0, 3.0)
    assert state.after(9.0).recent_losses == ()


def test_what_lies_behind_is_not_passed_over_again() -> None:
    state = RunState(step=5, skipped_batches=(2,)).passing_over(PassedOver((1, 2, 6, 8), 3))
    # Batch 1 was trained on before: the next one is the sixth.
    assert state.skipped_batches == (2, 6, 8)
    assert (state.step, state.rollbacks, state.batch_index) == (5, 3, 7)
    assert RunState(rollbacks=4).passing_over(PassedOver((), 3)).rollbacks == 4


def test_what_two_notes_know_is_joined() -> None:
    assert PassedOver((5, 2), 1).joined(PassedOver((2, 3), 4)) == PassedOver((2, 3, 5), 4)
    assert PassedOver((5,), 4).joined(PassedOver()) == PassedOver((5,), 4)
