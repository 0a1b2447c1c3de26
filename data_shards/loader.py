"""Batch t of this rank, any t, at once: threads make the asked-for batch and the ones that follow it."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from data_shards import batch as batches
from data_shards import draws, manifest
from data_shards.assemble import Assembler
from data_shards.batch import Batch
from data_shards.config import DataConfig
from data_shards.extents import EXTENT_BYTES
from data_shards.manifest import Manifest, Split
from data_shards.order import EvalOrder, TrainOrder
from data_shards.reader import Reader, check_shards

MIB = 1 << 20


class Loader:
    """This rank's part of any global batch.

    `loader(step)` returns it; batches come from one order, so a step is the same whenever and wherever it is asked for.
    A loader serves one caller at a time. Close it, or use it as a context manager, to end its threads.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        order: TrainOrder | EvalOrder,
        config: DataConfig,
        *,
        seed: int,
        rank: int,
        world_size: int,
        train: bool,
        pinned: bool = False,
    ) -> None:
        if order.global_batch % world_size:
            raise ValueError(
                f"a global batch of {order.global_batch} cannot be shared by {world_size} ranks; "
                "choose a train.global_batch that the number of ranks divides"
            )
        shards = manifest.read(folder)
        _check(folder, shards, split, config, train=train)
        self._order = order
        self._last_step = None if train else order.steps_per_epoch - 1
        share = order.global_batch // world_size
        self._slots = rank * share, (rank + 1) * share
        self._num_ahead = max(
            1, min(config.prefetch_batches, config.prefetch_mib * MIB // batches.num_bytes(config, share))
        )
        self.reader = Reader(folder, shards.split(split), live_bytes=live_bytes(shards.split(split), order, world_size))
        draws_key = draws.key("samples", shards.split(split).fingerprint, seed) if train else None
        self._assembler = Assembler(self.reader, config, len(shards.label_names), draws_key, pinned)
        self._threads = ThreadPoolExecutor(config.num_threads, thread_name_prefix=f"decode_{split}")
        self._coming: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        """Return this rank's part of global batch `step`; an error names the shard and the key that it is about."""
        wanted = range(step, step + 1 + self._num_ahead)
        if self._last_step is not None:
            wanted = range(step, max(step, min(wanted.stop - 1, self._last_step)) + 1)
        for other in self._coming.keys() - set(wanted):
            self._coming.pop(other).cancel()
        for number in wanted:
            if number not in self._coming:
                self._coming[number] = self._threads.submit(self._make, number)
        return self._coming.pop(step).result()

    def close(self) -> None:
        """End the threads; what is being made is finished, what waits is dropped."""
        self._threads.shutdown(cancel_futures=True)
        self._coming.clear()
        self.reader.close()

    def _make(self, step: int) -> Batch:
        return self._assembler.batch(self._order.slots(step, *self._slots))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def live_bytes(split: Split, order: TrainOrder | EvalOrder, world_size: int) -> int:
    """Return the bytes of the extents that this rank's lanes have begun and not finished, with one to spare each."""
    sample_bytes = sum(shard.num_bytes for shard in split.shards) / split.num_samples
    return -(-order.lanes // world_size) * (int(order.window * sample_bytes) + 3 * EXTENT_BYTES)


def _check(folder: Path, shards: Manifest, name: str, config: DataConfig, *, train: bool) -> None:
    """Raise ValueError with the first reason for which the split cannot serve the run."""
    split = shards.split(name)
    check_shards(folder, split)
    for modality in config.modalities():
        if not any(shard.modalities.get(modality) for shard in split.shards):
            there = sorted({name for shard in split.shards for name, count in shard.modalities.items() if count})
            raise ValueError(
                f"{folder / 'manifest.json'}: no sample of split {name!r} has {modality}, only {', '.join(there)}; "
                f"set data.{modality}=null, or build the shards with {modality}"
            )
    if train:
        _check_classes(folder, shards, split)


def _check_classes(folder: Path, shards: Manifest, split: Split) -> None:
    empty = [label for label, count in zip(shards.label_names, split.label_counts, strict=False) if not count]
    if empty:
        others = f" (nor have {len(empty) - 1} others)" if empty[1:] else ""
        raise ValueError(
            f"{folder / 'manifest.json'}: class {empty[0]!r} has no sample to train on{others}; "
            "add samples or leave the class out, and build again"
        )
