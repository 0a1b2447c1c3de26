"""The loader: batch t of this rank, for any t, at once. Threads or processes also prepare the following batches.

    loader(7)    returns 7      8  9 10 11 are being made
    loader(8)    returns 8      9 10 11 stay, 12 is begun
    loader(3)    returns 3      9 to 12 are cancelled, 4 5 6 7 are begun: a run that rolls back needs nothing more

The order has no state, so workers may finish in any order and prefetched batches need not be saved with a checkpoint.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

from data_shards.files.quoting import counted
from data_shards.loading import batch as batches
from data_shards.loading.batch import Batch
from data_shards.loading.collate import Assembler
from data_shards.loading.loader import worker
from data_shards.loading.loader.prefetch import Fetcher
from data_shards.order.sample_order import Order, Slots

MIB = 1 << 20


class Loader:
    """This rank's part of any global batch.

    `loader(step)` returns it; batches come from one order, so a step is the same whenever and wherever it is asked for.
    A loader serves one caller at a time. Close it, or use it as a context manager, to end its threads or processes.
    """

    def __init__(
        self,
        assembler: Assembler,
        order: Order,
        *,
        rank: int,
        world_size: int,
        last_step: int | None = None,
        fetch_ahead_batches: int = 0,
    ) -> None:
        """`last_step` is the last one there is; `fetch_ahead_batches` says how early shards are brought near."""
        config = assembler.config
        if order.global_batch % world_size:
            raise ValueError(
                f"a global batch of {order.global_batch} cannot be shared by {world_size} ranks; "
                "choose a train.global_batch that the number of ranks divides"
            )
        self.left_out = tuple(
            f"data.require leaves out {counted(source.num_left_out, 'sample')} of split {source.split!r}"
            f"{f' of dataset {source.name}' if source.name else ''}"
            for source in assembler.sources
            if source.num_left_out
        )
        """Sentences on the samples that are not read."""
        share = order.global_batch // world_size
        self.assembler = assembler
        self.order, self._last_step = order, last_step
        self._slots = rank * share, (rank + 1) * share
        # At least one, whatever the limit of memory: without any, the device waits while each batch is decoded.
        self._num_ahead = max(
            1, min(config.prefetch_batches, config.prefetch_mib * MIB // batches.num_bytes(config, share))
        )
        self._workers: Executor = (
            # Page-locked memory cannot be handed to another process: such a batch is copied into it where it arrives.
            worker.processes(replace(assembler, pinned=False), config.num_processes)
            if config.num_processes
            else ThreadPoolExecutor(config.num_threads, thread_name_prefix="decode")
        )
        self._make: Callable[[Slots], Batch] = worker.make if config.num_processes else assembler.batch
        self._coming: dict[int, Future[Batch]] = {}
        readers = [source.reader for source in assembler.sources]
        self._fetcher = Fetcher(order, self._slots, readers, fetch_ahead_batches) if fetch_ahead_batches else None

    def __call__(self, step: int) -> Batch:
        """Return this rank's part of global batch `step`; an error names the shard and the key that it is about."""
        wanted = range(step, step + 1 + self._num_ahead)
        if self._last_step is not None:
            # The step itself stays even behind the last one: the order then says what is wrong with it.
            wanted = range(step, max(step, min(wanted.stop - 1, self._last_step)) + 1)
        if self._fetcher:
            self._fetcher.follow(step)
        for other in self._coming.keys() - set(wanted):
            # Only what has not begun can be cancelled. A batch that is being made is finished and dropped.
            self._coming.pop(other).cancel()
        for number in wanted:
            if number not in self._coming:
                self._coming[number] = self._submitted(number)
        # Number and place are added here: a worker gets slots, which do not say what they are of.
        batch = replace(self._coming.pop(step).result(), index=step, first=self._slots[0])
        return batch.pinned() if self.assembler.pinned else batch

    def close(self) -> None:
        """End the threads; what is being made is finished, what waits is dropped."""
        if self._fetcher:
            self._fetcher.close()
        self._workers.shutdown(cancel_futures=True)
        self._coming.clear()
        for source in self.assembler.sources:
            # After the workers: one that still decodes would fill the reader again.
            source.reader.close()

    def _submitted(self, step: int) -> Future[Batch]:
        # Slots are computed by the caller, whose order has the stretches of its lanes at hand; workers need no order.
        return self._workers.submit(self._make, self.order.slots(step, *self._slots))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
