"""Fetches the shards of coming batches ahead of time: the order says long in advance which those are."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from data_shards.loading.reader import SampleReader
from data_shards.order.sample_order import Order

# A fetch waits for the network, not for the processor: a few at a time hide the latency of an object store.
_NUM_THREADS = 4


class Fetcher:
    """Fetches the shards of this rank's slots, up to a number of batches ahead."""

    def __init__(self, order: Order, slots: tuple[int, int], readers: Sequence[SampleReader], num_ahead: int) -> None:
        self._order, self._slots, self._readers, self._num_ahead = order, slots, readers, num_ahead
        self._last_step_of: dict[tuple[int, int], int] = {}
        """The last known step that needs a shard, by (source, shard)."""
        self._looked_at = range(0)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="fetch")

    def follow(self, step: int) -> None:
        """Ask for the shards of the batches from `step` on; returns at once.

        A fetch that fails is left to whoever needs the shard: it fails there once more, with all that can be said.
        """
        # A shard serves many steps. As long as one of them is ahead it is not asked for again.
        self._last_step_of = {place: last for place, last in self._last_step_of.items() if last >= step}
        seen, self._looked_at = self._looked_at, range(step, step + self._num_ahead + 1)
        for number in self._looked_at:
            if number not in seen:
                slots = self._order.slots(number, *self._slots)
                # In the order of the slots, so that what is needed first comes first.
                for place in dict.fromkeys(zip(slots.source.tolist(), slots.shard.tolist(), strict=True)):
                    if place not in self._last_step_of:
                        # The future is dropped, and with it the error; see above.
                        self._threads.submit(self._readers[place[0]].fetch, place[1])
                    self._last_step_of[place] = number

    def close(self) -> None:
        """End the threads; what is on its way is finished."""
        self._threads.shutdown(cancel_futures=True)
