"""Mixtures: several datasets in one stream. How many samples of each a batch contains, and which.

The counts after n slots are a formula, so any step is as near as the first. Datasets are the leaves of a Huffman tree
over their weights; at each fork of the tree the left branch has had round(n * its share) of the fork's n slots. A fork
adds at most 1/2 to the error, and what comes from above is multiplied by the branch's share. In a Huffman tree the
shares fall so fast with the depth that a dataset is never 2 samples away from its exact part, however many there are.

    weights a 6, b 3, c 1; the first 10 slots

    (c b) | a     left share 4/10     round(10 * 4/10) = 4 slots to the left, the rest, 6, to a
      c | b       left share 1/4      round(4 * 1/4)   = 1 slot to c, the rest, 3, to b

Nothing is counted from step to step, so a resume at step 10^6 costs these two roundings and no more.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from data_shards.files.quoting import counted
from data_shards.format.manifest import Split
from data_shards.order.sample_order import LaneOrder, Slots, check_lanes


@dataclass(frozen=True)
class _Fork:
    left: "_Fork | int"
    right: "_Fork | int"
    left_share: Fraction


class Schedule:
    """Samples of each dataset among the first n slots, for any n."""

    def __init__(self, weights: Sequence[float]) -> None:
        # Exact fractions: a share in floating point drifts from round(n * share) as n grows, and may round differently
        # on another machine.
        self._num_datasets = len(weights)
        # The number in second place keeps equal weights from being compared by their nodes.
        heap: list[tuple[Fraction, int, _Fork | int]] = [
            (Fraction(weight).limit_denominator(10**6), number, number) for number, weight in enumerate(weights)
        ]
        heapq.heapify(heap)
        while len(heap) > 1:
            (light, number, left), (heavy, _, right) = heapq.heappop(heap), heapq.heappop(heap)
            heapq.heappush(heap, (light + heavy, number, _Fork(left, right, light / (light + heavy))))
        self._root = heap[0][2]

    def counts(self, num_slots: int) -> list[int]:
        """Return how many of the first `num_slots` slots each dataset has."""
        counts = [0] * self._num_datasets
        waiting = [(self._root, num_slots)]
        while waiting:
            node, count = waiting.pop()
            if isinstance(node, int):
                counts[node] = count
            else:
                # The right branch gets the rest, so the counts add up to num_slots whatever was rounded.
                left = (count * node.left_share + Fraction(1, 2)).__floor__()
                waiting += [(node.left, left), (node.right, count - left)]
        return counts


class MixedOrder:
    """Batches that draw on several splits by weight, each split in its own endless epochs.

    A dataset gives its samples to its lanes in turn. A batch is sorted by lane, so that a rank keeps to the same lanes
    of every dataset; with one dataset this is the order of TrainOrder.
    """

    def __init__(
        self, splits: Sequence[Split], weights: Sequence[float], seed: int, global_batch: int, lanes: int, window: int
    ) -> None:
        check_lanes(global_batch, lanes)
        for split in splits:
            # Its lanes would have no place at all, and the mixture would divide by their length.
            if split.num_samples < lanes:
                raise ValueError(
                    f"a dataset of {counted(split.num_samples, 'sample')} does not fill {lanes} lanes; lower data.lanes"
                )
        self.global_batch, self.lanes, self.window = global_batch, lanes, window
        # At least 1, also where all datasets together are less than a batch: epochs are counted by dividing by it.
        self.steps_per_epoch = max(1, sum(split.num_samples for split in splits) // global_batch)
        """Steps in which as many samples pass as there are in all datasets together."""
        self.num_dropped = sum(split.num_samples % lanes for split in splits)
        self._schedule = Schedule(weights)
        self._orders = [LaneOrder(split, seed, lanes, window) for split in splits]

    def slots(self, step: int, start: int, stop: int) -> Slots:
        """Return slots start to stop of global batch `step`."""
        # What a dataset has had before this step is also the number of its next sample: no state besides the step.
        before, after = (self._schedule.counts(number * self.global_batch) for number in (step, step + 1))
        item = np.concatenate([np.arange(first, last) for first, last in zip(before, after, strict=True)])
        source = np.repeat(np.arange(len(before)), np.subtract(after, before))
        # The last key sorts first: by lane. Cut by ranks in any other order, every rank would read every lane.
        chosen = np.lexsort((item, source, item % self.lanes))[start:stop]
        item, source = item[chosen], source[chosen]
        epoch_length = np.array([order.lane_length * self.lanes for order in self._orders])[source]
        epoch, position = item // epoch_length, item % epoch_length
        shard, sample = np.empty_like(item), np.empty_like(item)
        # By epoch too: a small dataset may end one epoch and begin the next within one batch.
        for number, turn in {*zip(source.tolist(), epoch.tolist(), strict=True)}:
            cut = (source == number) & (epoch == turn)
            lane, place = position[cut] % self.lanes, position[cut] // self.lanes
            shard[cut], sample[cut] = self._orders[number].samples(turn, lane, place)
        return Slots(shard, sample, epoch, position, np.ones(len(item), np.float32), source)
