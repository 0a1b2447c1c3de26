"""The state names the next batch, skips those that are to be skipped, and survives JSON."""

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from data_shards.json_file import typed
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
