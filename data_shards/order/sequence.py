"""The order of prediction: every sample of every source once, in the order in which they were named.

A batch has the same samples whoever asks for it, so that answers do not depend on the number of processes, and what
was answered before a kill need not be answered again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_shards.order.sample_order import Slots


class SequentialOrder:
    """Consecutive samples; the last batch is padded with slots of weight 0.

    Step i is the i-th of `batches`, the numbers of those that one process answers. With several clips a sample each
    batch comes so often in a row, as in an evaluation.
    """

    def __init__(
        self, counts: Sequence[Sequence[int]], global_batch: int, batches: Sequence[int], num_clips: int = 1
    ) -> None:
        """`counts` are the samples of each shard of each source."""
        # As of an order with one lane and no window: whoever has an Order need not know of this one.
        self.global_batch, self.lanes, self.window, self.num_dropped = global_batch, 1, 0, 0
        self.steps_per_epoch = len(batches) * num_clips
        self._batches, self._num_clips = batches, num_clips
        self._source = np.repeat(np.arange(len(counts)), [len(each) for each in counts])
        self._shard = np.concatenate([np.arange(len(each)) for each in counts])
        self._starts = np.concatenate([[0], np.cumsum([count for each in counts for count in each])])

    def slots(self, step: int, start: int, stop: int) -> Slots:
        """Return slots start to stop of a batch."""
        step, clip = divmod(step, self._num_clips)
        position = self._batches[step] * self.global_batch + np.arange(start, stop)
        real = position < self._starts[-1]
        # Padding takes any sample: it has weight 0.
        source, shard, sample = self.located(np.where(real, position, 0))
        # As in an evaluation: where nothing is drawn, the epoch of a slot is the number of its clip.
        epoch = np.full(len(position), clip)
        return Slots(shard, sample, epoch, position, real.astype(np.float32), source)

    def located(self, number: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return source, shard and place in the shard of samples by their numbers."""
        # right: of several shards that begin at one number all but the last are empty.
        place = np.searchsorted(self._starts, number, side="right") - 1
        return self._source[place], self._shard[place], number - self._starts[place]
