"""The order's claims as properties, and for each a planted fault that breaks it."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.format.manifest import ShardEntry, Shards, Split
from data_shards.order.sample_order import EvalOrder, LaneOrder, Slots, TrainOrder

Order = TrainOrder | EvalOrder
Take = Callable[[Order, int, int, int], Slots]
WORLD_SIZES = (1, 2, 3, 4, 6, 8)


def split_of(counts: list[int]) -> Split:
    entries = [ShardEntry(f"{n}.tar", count, 1, f"{n:064x}", "0" * 64, {}) for n, count in enumerate(counts)]
    return Split(Shards.of(entries), ())


def take(order: Order, step: int, start: int, stop: int) -> Slots:
    return order.slots(step, start, stop)


@dataclass(frozen=True)
class Drawn:
    """The arguments of an order."""

    split: Split
    seed: int
    global_batch: int
    lanes: int
    window: int

    def order(self) -> TrainOrder:
        return TrainOrder(self.split, self.seed, self.global_batch, self.lanes, self.window)


@st.composite
def arguments(draw: st.DrawFn) -> Drawn:
    lanes = draw(st.sampled_from([1, 2, 3, 4, 8]))
    # 24 slots are shared by every world size of the claim.
    global_batch = 24 * draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(0, 60), min_size=1, max_size=12))
    # Short lanes lose up to a batch and a lane: top up so that there is a step.
    counts.append(max(1, global_batch + lanes - sum(counts)))
    return Drawn(split_of(counts), draw(st.integers(0, 5)), global_batch, lanes, draw(st.integers(1, 90)))


def ids(slots: Slots) -> list[tuple[int, int]]:
    return list(zip(slots.shard.tolist(), slots.sample.tolist(), strict=True))


def epoch_ids(order: Order, epoch: int = 0) -> list[tuple[int, int]]:
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    return [name for step in steps for name in ids(order.slots(step, 0, order.global_batch))]


def check_ranks_share_the_batch(order: Order, take: Take, step: int) -> None:
    """Every world size cuts the same global batch, position and weight included."""
    whole = order.slots(step, 0, order.global_batch)
    for world_size in WORLD_SIZES:
        share = order.global_batch // world_size
        parts = [take(order, step, rank * share, (rank + 1) * share) for rank in range(world_size)]
        for field in ("shard", "sample", "epoch", "position", "weight", "source"):
            joined = np.concatenate([getattr(part, field) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, field), err_msg=f"{field}, {world_size} ranks")


def check_epoch_is_disjoint_and_complete(split: Split, order: TrainOrder, names: list[tuple[int, int]]) -> None:
    """Nothing twice, nothing that is not there, and only the announced few left out."""
    everything = {(number, sample) for number, shard in enumerate(split.shards) for sample in range(shard.num_samples)}
    assert len(set(names)) == len(names)
    assert set(names) <= everything
    assert len(everything) - len(names) == order.num_dropped < order.global_batch + 8


def check_resume(make: Callable[[], Order], killed_at: int) -> None:
    """A new order, asked from a step on, goes on as the one that served all steps before."""
    order, later = make(), range(killed_at, killed_at + 3)
    uninterrupted = [ids(order.slots(step, 0, order.global_batch)) for step in range(later.stop)]
    resumed = make()
    assert [ids(resumed.slots(step, 0, order.global_batch)) for step in later] == uninterrupted[killed_at:]


def check_displacement(lane: np.ndarray, window: int) -> None:
    """No sample of a lane is further than half a window from its place."""
    assert np.all(np.abs(lane - np.arange(len(lane))) <= window / 2)


@settings(max_examples=40, deadline=None)
@given(arguments(), st.integers(0, 40))
def test_ranks_share_every_global_batch(drawn: Drawn, step: int) -> None:
    check_ranks_share_the_batch(drawn.order(), take, step)


def test_planted_fault_a_rank_that_reads_its_neighbours_slots() -> None:
    order = TrainOrder(split_of([100]), 0, 24, 4, 10)
    with pytest.raises(AssertionError, match="2 ranks"):
        check_ranks_share_the_batch(order, lambda o, step, a, b: o.slots(step, a and a - 1, b and b - (a > 0)), 0)


@settings(max_examples=40, deadline=None)
@given(arguments(), st.integers(0, 3))
def test_an_epoch_is_disjoint_and_complete(drawn: Drawn, epoch: int) -> None:
    order = drawn.order()
    check_epoch_is_disjoint_and_complete(drawn.split, order, epoch_ids(order, epoch))


@pytest.mark.parametrize("fault", ["a sample twice", "a sample lost", "a sample that is not there"])
def test_planted_fault_in_an_epoch(fault: str) -> None:
    split = split_of([30, 30])
    order = TrainOrder(split, 0, 12, 4, 10)
    names = epoch_ids(order)
    faulty = {
        "a sample twice": [*names[:-1], names[0]],
        "a sample lost": names[:-1],
        "a sample that is not there": [*names[:-1], (1, 30)],
    }
    with pytest.raises(AssertionError):
        check_epoch_is_disjoint_and_complete(split, order, faulty[fault])


@settings(max_examples=40, deadline=None)
@given(arguments(), st.integers(0, 30))
def test_a_resumed_order_equals_the_uninterrupted_one(drawn: Drawn, killed_at: int) -> None:
    check_resume(drawn.order, killed_at)


def test_planted_fault_an_order_with_a_memory() -> None:
    class Remembers(TrainOrder):
        steps_served = 0

        def slots(self, step: int, start: int, stop: int) -> Slots:
            self.steps_served += 1
            return super().slots(self.steps_served, start, stop)

    with pytest.raises(AssertionError):
        check_resume(lambda: Remembers(split_of([100]), 0, 24, 4, 10), 2)


@settings(max_examples=60, deadline=None)
@given(arguments(), st.integers(0, 3), st.data())
def test_displacement_is_bounded_by_the_window(drawn: Drawn, epoch: int, data: st.DataObject) -> None:
    order = LaneOrder(drawn.split, drawn.seed, drawn.lanes, drawn.window)
    number = data.draw(st.integers(0, drawn.lanes - 1))
    lane = order.lane(epoch, number, 0, order.lane_length)
    assert sorted(lane.tolist()) == list(range(order.lane_length))
    check_displacement(lane, drawn.window)
    middle = order.lane_length // 2
    np.testing.assert_array_equal(order.lane(epoch, number, middle, order.lane_length), lane[middle:])


def test_planted_fault_a_sample_that_moves_too_far() -> None:
    lane = np.arange(20)
    lane[[0, 6]] = lane[[6, 0]]
    with pytest.raises(AssertionError):
        check_displacement(lane, 10)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=10), st.sampled_from([1, 2, 6, 24, 48]))
def test_evaluation_counts_every_sample_once(counts: list[int], global_batch: int) -> None:
    split = split_of([*counts, 1])
    order = EvalOrder(split, global_batch)
    real = []
    for step in range(order.steps_per_epoch):
        slots = order.slots(step, 0, global_batch)
        assert set(slots.weight.tolist()) <= {0.0, 1.0}
        real += [name for name, weight in zip(ids(slots), slots.weight, strict=True) if weight]
    everything = [(number, sample) for number, shard in enumerate(split.shards) for sample in range(shard.num_samples)]
    assert sorted(real) == everything
    assert order.steps_per_epoch == -(-len(everything) // global_batch)
    if global_batch % 24 == 0:
        check_ranks_share_the_batch(order, take, order.steps_per_epoch - 1)


def test_epochs_differ_and_drop_different_samples() -> None:
    split = split_of([25] * 5)
    order = TrainOrder(split, 0, 24, 8, 16)
    everything = {(shard, sample) for shard in range(5) for sample in range(25)}
    epochs = [epoch_ids(order, epoch) for epoch in range(4)]
    dropped = [everything - set(epoch) for epoch in epochs]
    assert all(first != second for first, second in pairwise(epochs))
    assert all(len(names) == order.num_dropped > 0 for names in dropped)
    assert len({frozenset(names) for names in dropped}) == 4


def test_other_data_other_seed_other_lanes_give_another_order() -> None:
    split = split_of([50, 50])
    changed = Split(Shards.of([split.shards[0], replace(split.shards[1], sha256="f" * 64)]), ())
    orders = [(split, 0, 4, 10), (changed, 0, 4, 10), (split, 1, 4, 10), (split, 0, 2, 10), (split, 0, 4, 11)]
    batches = {tuple(epoch_ids(TrainOrder(data, seed, 20, lanes, w))) for data, seed, lanes, w in orders}
    assert len(batches) == len(orders)


def test_a_lane_has_at_most_window_over_shard_plus_one_shards_open() -> None:
    order = TrainOrder(split_of([50] * 40), 3, 8, 4, window=100)
    for lane in range(4):
        touched = [set(order.slots(step, 2 * lane, 2 * lane + 2).shard.tolist()) for step in range(200)]
        for step in range(200):
            is_open = set[int]().union(*touched[: step + 1]) & set[int]().union(*touched[step:])
            assert len(is_open) <= 100 // 50 + 1


def test_the_order_never_changes_between_releases() -> None:
    """A resumed run rests on these numbers: a change here needs a new version of the data state."""
    order = TrainOrder(split_of([40, 30, 50]), 7, 8, 4, 16)
    slots = order.slots(17, 0, 8)
    assert slots.epoch.tolist() == [1] * 8
    assert slots.position.tolist() == list(range(16, 24))
    assert ids(slots) == [(1, 6), (1, 11), (2, 9), (2, 3), (2, 34), (2, 35), (0, 14), (0, 21)]


def test_too_few_samples_and_lanes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10 samples do not fill one global batch of 16 from 4 lanes; lower"):
        TrainOrder(split_of([10]), 0, 16, 4, 4)
    with pytest.raises(
        ValueError, match=r"data\.lanes = 5 does not divide the global batch of 16; set .* 1, 2, 4, 8, 16"
    ):
        TrainOrder(split_of([100]), 0, 16, 5, 4)
    with pytest.raises(ValueError, match="the split holds no samples"):
        EvalOrder(split_of([0]), 4)
    with pytest.raises(ValueError, match="step 3 of an evaluation that has 3 steps"):
        EvalOrder(split_of([10]), 4).slots(3, 0, 4)


def test_memory_does_not_grow_with_the_samples() -> None:
    peaks = []
    for samples_per_shard in (1_000, 100_000):
        split = split_of([samples_per_shard] * 2_000)
        tracemalloc.start()
        order = TrainOrder(split, 0, 64, 8, 256)
        for step in range(order.steps_per_epoch, order.steps_per_epoch + 50):
            order.slots(step, 0, 8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
