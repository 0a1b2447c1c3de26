"""The order of samples: which sample fills which slot of which global batch, as arithmetic and without state.

An epoch permutes the shards and lays their samples end to end, from a random place on and round to it again. This
line is cut into L lanes of equal length. Inside a lane, sample i goes to the rank of i + u * window / 2 among all such
numbers, u uniform in [0, 1): none moves further than window / 2, so a lane reads its shards one after the other. A
global batch takes the next B / L samples of every lane. A rank takes consecutive slots of it, hence its own lanes and
nearly always its own shards.

    slot        0 .. B/L-1 | B/L .. 2B/L-1 | ...         rank r of R: slots r B/R to (r + 1) B/R
    lane             0     |       1       | ... L-1

The numbers of an epoch depend on fingerprint, seed, epoch, lanes and window, and on nothing else.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np

from data_shards.files.quoting import counted
from data_shards.format.manifest import Split
from data_shards.order import random_numbers


# eq=False: a generated == would ask arrays for a truth value, which they refuse.
@dataclass(frozen=True, eq=False)
class Slots:
    """Consecutive slots of a global batch; every field has an entry a slot."""

    shard: np.ndarray
    """int64: index into the split's shards."""
    sample: np.ndarray
    """int64: number of the sample in its shard."""
    epoch: np.ndarray
    """int64: epoch of the slot's source."""
    position: np.ndarray
    """int64: number of the slot within that epoch; with the epoch it names every random draw for the sample."""
    weight: np.ndarray
    """float32: 0 for a slot that only pads the batch, else 1."""
    source: np.ndarray
    """int64: which of the mixed datasets; 0 where there is one."""


class Order(Protocol):
    """The order of a loader: TrainOrder, EvalOrder, or mixture.MixedOrder."""

    global_batch: int
    lanes: int
    window: int
    steps_per_epoch: int
    num_dropped: int
    """The number of samples that an epoch drops, different ones each epoch."""

    def slots(self, step: int, start: int, stop: int) -> Slots:
        """Return slots start to stop of global batch `step`."""


class TrainOrder:
    """Epochs without end, each a new shuffle in which no sample comes twice."""

    def __init__(self, split: Split, seed: int, global_batch: int, lanes: int, window: int) -> None:
        check_lanes(global_batch, lanes)
        self.global_batch, self.lanes, self.window = global_batch, lanes, window
        self.steps_per_epoch = split.num_samples // lanes // (global_batch // lanes)
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{counted(split.num_samples, 'sample does', 'samples do')} not fill one global batch of "
                f"{global_batch} from {lanes} lanes; lower train.global_batch or data.lanes, or add samples"
            )
        # Whole steps only: every rank then takes as many steps as every other, and no collective waits for a rank that
        # has run out of samples.
        self.num_dropped = split.num_samples - self.steps_per_epoch * global_batch
        self._samples = LaneOrder(split, seed, lanes, window).samples

    def slots(self, step: int, start: int, stop: int) -> Slots:
        """Return slots start to stop of global batch `step`, counted over all epochs."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        slot = np.arange(start, stop)
        per_lane = self.global_batch // self.lanes
        place = step_in_epoch * per_lane + slot % per_lane
        shard, sample = self._samples(epoch, slot // per_lane, place)
        return Slots(
            shard,
            sample,
            epoch=np.full(len(slot), epoch),
            position=step_in_epoch * self.global_batch + slot,
            weight=np.ones(len(slot), np.float32),
            source=np.zeros(len(slot), np.int64),
        )


class EvalOrder:
    """One pass over a split, every sample once; the last batches are padded with slots of weight 0.

    With several clips a sample each batch comes so often in a row, once for each clip: slots name it as their epoch.
    Each slot of the batch reads its own stretch of the split, so ranks share the shards as they do in training.
    """

    def __init__(self, split: Split, global_batch: int, num_clips: int = 1) -> None:
        if split.num_samples == 0:
            raise ValueError("the split holds no samples; build it, or evaluate another one")
        # The lanes must divide the batch; no more than 8 of them, since each holds extents of its own in memory.
        self.global_batch, self.lanes, self.window = global_batch, math.gcd(global_batch, 8), 0
        self.num_clips = num_clips
        self.steps_per_epoch = -(-split.num_samples // global_batch) * num_clips
        self.num_dropped = 0
        self._starts = _starts(split.shards.num_samples)

    def slots(self, step: int, start: int, stop: int) -> Slots:
        """Return slots start to stop of batch `step`; ValueError past the last step."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step {step} of an evaluation that has {self.steps_per_epoch} steps")
        step, clip = divmod(step, self.num_clips)
        num_samples = int(self._starts[-1])
        slot = np.arange(start, stop)
        per_lane, lane_length = self.global_batch // self.lanes, -(-num_samples // self.lanes)
        place = step * per_lane + slot % per_lane
        number = slot // per_lane * lane_length + place
        # Both ends: behind its last place a lane would read the first samples of the next one a second time, and the
        # last lane is shorter where the lanes do not divide the split.
        real = (place < lane_length) & (number < num_samples)
        # A padded slot is never read, but it must lie somewhere for the look-up.
        shard, sample = _located(self._starts, np.where(real, number, 0))
        return Slots(
            shard,
            sample,
            epoch=np.full(len(slot), clip),
            position=step * self.global_batch + slot,
            weight=real.astype(np.float32),
            source=np.zeros(len(slot), np.int64),
        )


class LaneOrder:
    """The lanes of every epoch: a place in a lane to a sample. Memory grows with shards and lanes, not with samples."""

    def __init__(self, split: Split, seed: int, lanes: int, window: int) -> None:
        self.lanes = lanes
        self.lane_length = split.num_samples // lanes
        # Every lane has the same length, or the last steps of an epoch would lack slots. What is left over, fewer
        # samples than lanes, is dropped; the rotation of the epoch decides which ones.
        self._counts = split.shards.num_samples
        self._window = window
        self._identity = (split.fingerprint, seed, lanes, window)
        # Neighbouring batches use the same stretch of a lane; two of them for every lane are at hand.
        self._cached_lane = lru_cache(maxsize=2 * lanes)(self.lane)
        self._cached_epoch = lru_cache(maxsize=2)(self._permuted_shards)

    def samples(self, epoch: int, lane: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return shard and sample at places of lanes, each int64 like `lane` and `place`."""
        number = np.empty(len(lane), np.int64)
        # One number for lane and stretch. A lane has fewer stretches than lane_length + 1, so no two share a number.
        for cut in _runs(lane * (self.lane_length + 1) + place // self._window):
            # By whole stretches of a window: a batch takes a few places of each lane, and the next batches find theirs
            # computed.
            begin = int(place[cut.start]) // self._window * self._window
            end = min(begin + self._window, self.lane_length)
            shuffled = self._cached_lane(epoch, int(lane[cut.start]), begin, end)
            # Lane 0 begins at the rotation, not at the first shard, so positions on the line are counted from there and
            # round.
            number[cut] = lane[cut] * self.lane_length + shuffled[place[cut] - begin]
        shards, starts, rotation = self._cached_epoch(epoch)
        shard, sample = _located(starts, (number + rotation) % starts[-1])
        return shards[shard], sample

    def lane(self, epoch: int, lane: int, begin: int, end: int) -> np.ndarray:
        """Return the numbers, counted from the lane's start, of the samples at places begin to end of a lane."""
        reach = -(-self._window // 2)
        # Samples that can come to these places lie within `reach` of them, and what can come between those within
        # twice that. All that lie before `first` come before, so a place's rank here is its rank in the lane.
        first, last = max(0, begin - 2 * reach), min(self.lane_length, end + 2 * reach)
        jitter = random_numbers.uniform(random_numbers.key("lane", *self._identity, epoch, lane), first, last)
        # Stable, here and for the shards: equal keys must not be sorted by the luck of numpy's version or of the
        # processor.
        rank = np.argsort(np.arange(first, last) + jitter * (self._window / 2), kind="stable")
        return first + rank[begin - first : end - first]

    def _permuted_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return shards in the epoch's order, where each starts on the line, and where on the line lane 0 starts."""
        numbers = random_numbers.words(random_numbers.key("shards", *self._identity, epoch), 0, len(self._counts) + 1)
        shards = np.argsort(numbers[:-1], kind="stable")
        starts = _starts(self._counts[shards])
        # The word after the shards' own turns the line, so that the dropped end falls on other samples in each epoch.
        return shards, starts, int(numbers[-1]) % int(starts[-1])


def check_lanes(global_batch: int, lanes: int) -> None:
    """Raise ValueError where the lanes cannot give equal parts of the global batch."""
    if global_batch % lanes:
        raise ValueError(
            f"data.lanes = {lanes} does not divide the global batch of {global_batch}; "
            f"set data.lanes to one of {', '.join(str(n) for n in range(1, 257) if global_batch % n == 0)}"
        )


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


def _located(starts: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shard = np.searchsorted(starts, number, side="right") - 1
    return shard, number - starts[shard]


def _runs(values: np.ndarray) -> Iterator[slice]:
    """Yield the slices over which the values stay the same."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    yield from (slice(begin, end) for begin, end in pairwise(edges) if begin < end)
