"""Mixing: counts follow the weights at every step, ranks share the batch, each dataset keeps its own epochs."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.format.manifest import ShardEntry, Shards, Split
from data_shards.order.mixture import MixedOrder, Schedule
from data_shards.order.sample_order import Slots, TrainOrder

WEIGHTS = st.lists(st.floats(0.001, 1000), min_size=1, max_size=12)


def split_of(counts: list[int], name: str = "") -> Split:
    entries = [ShardEntry(f"{name}{n}.tar", count, 1, f"{n:064x}", "0" * 64, {}) for n, count in enumerate(counts)]
    return Split(Shards.of(entries), ())


def ids(slots: Slots) -> list[tuple[int, int, int, int]]:
    columns = (slots.source, slots.epoch, slots.shard, slots.sample)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def check_counts(counts: list[int], weights: list[float], num_slots: int) -> None:
    """No dataset is 3 samples from its exact part."""
    parts = np.array(weights) / sum(weights) * num_slots
    assert sum(counts) == num_slots
    # Weights are taken to a millionth, which 1e6 slots can show as one sample.
    assert np.all(np.abs(np.array(counts) - parts) <= 2 + num_slots * 1e-6)


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.integers(0, 100_000))
def test_counts_follow_the_weights_at_every_step(weights: list[float], num_slots: int) -> None:
    weights = [max(weight, sum(weights) * 1e-3) for weight in weights]
    schedule = Schedule(weights)
    check_counts(schedule.counts(num_slots), weights, num_slots)
    before, after = schedule.counts(num_slots), schedule.counts(num_slots + 1)
    assert sorted(np.subtract(after, before).tolist()) == [0] * (len(weights) - 1) + [1]


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 10_000))
def test_the_counts_of_two_datasets_are_the_nearest_ones(first: int, second: int, num_slots: int) -> None:
    count, _ = Schedule([first, second]).counts(num_slots)
    assert abs(count - Fraction(num_slots * first, first + second)) <= Fraction(1, 2)


def test_planted_fault_a_random_schedule_strays() -> None:
    drawn = np.random.default_rng(0).choice(3, 10_000, p=[0.5, 0.3, 0.2])
    with pytest.raises(AssertionError):
        check_counts(np.bincount(drawn).tolist(), [0.5, 0.3, 0.2], 10_000)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(8, 60), min_size=1, max_size=4), st.sampled_from([1, 2, 4, 8]), st.integers(0, 30), st.data()
)
def test_ranks_share_every_mixed_batch(sizes: list[int], lanes: int, step: int, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 9), min_size=len(sizes), max_size=len(sizes)))
    splits = [split_of([size], f"{number}_") for number, size in enumerate(sizes)]
    order = MixedOrder(splits, weights, 0, 24, lanes, 16)
    whole = ids(order.slots(step, 0, 24))
    for world_size in (2, 3, 4, 6, 8):
        share = 24 // world_size
        parts = [ids(order.slots(step, rank * share, (rank + 1) * share)) for rank in range(world_size)]
        assert [name for part in parts for name in part] == whole


def test_each_dataset_has_its_own_epochs_without_repeats() -> None:
    order = MixedOrder([split_of([40]), split_of([16], "b")], [1, 1], 0, 8, 4, 8)
    seen = Counter(name for step in range(20) for name in ids(order.slots(step, 0, 8)))
    assert max(seen.values()) == 1  # within an epoch of its dataset, nothing comes twice
    epochs = {source: {epoch for number, epoch, *_ in seen if number == source} for source in (0, 1)}
    assert epochs == {0: {0, 1}, 1: {0, 1, 2, 3, 4}}
    assert sum(number == 1 and epoch == 3 for number, epoch, *_ in seen) == 16


def test_one_dataset_mixed_with_nothing_has_the_usual_order() -> None:
    split = split_of([48, 48])
    mixed, usual = MixedOrder([split], [3.0], 5, 24, 4, 16), TrainOrder(split, 5, 24, 4, 16)
    for step in range(8):
        assert ids(mixed.slots(step, 0, 24)) == ids(usual.slots(step, 0, 24))


def test_a_far_step_costs_no_more_than_the_first() -> None:
    order = MixedOrder([split_of([40]), split_of([16], "b")], [2, 1], 0, 12, 4, 8)
    slots = order.slots(10**12, 0, 12)
    assert len(slots.shard) == 12
    assert slots.epoch.min() > 10**10


def test_a_dataset_smaller_than_the_lanes_is_refused() -> None:
    with pytest.raises(ValueError, match="a dataset of 3 samples does not fill 4 lanes"):
        MixedOrder([split_of([3])], [1], 0, 8, 4, 8)


def test_what_does_not_fill_the_lanes_of_its_dataset_is_counted() -> None:
    order = MixedOrder([split_of([43]), split_of([18], "b")], [1, 1], 0, 8, 4, 8)
    assert order.num_dropped == 3 + 2
    slots = [name for step in range(60) for name in ids(order.slots(step, 0, 8))]
    of_first_epochs = {(source, shard, sample) for source, epoch, shard, sample in slots if epoch == 0}
    assert len(of_first_epochs) == 43 + 18 - order.num_dropped
