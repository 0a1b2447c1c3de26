"""Slots to a batch: read, decode and transform each sample, and lay it into its row of the batch's flat buffers."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from data_shards import batch as batches
from data_shards import draws
from data_shards.batch import NO_LABEL, Batch, Sample
from data_shards.buffers import BufferPool
from data_shards.config import DataConfig
from data_shards.mixing import mix_pairs
from data_shards.order import Slots
from data_shards.prepare import prepare
from data_shards.reader import Reader

PADDING = Sample({}, {})


@dataclass(frozen=True)
class Assembler:
    """Makes batches; threads share one."""

    reader: Reader
    config: DataConfig
    num_classes: int
    """Labels must be below; 0 where the data name no classes."""
    draws_key: int | None
    """Key of the random draws of training; None decodes without any, for evaluation."""
    pinned: bool = False
    """Whether the batch lies in page-locked memory, from which a copy to the GPU does not block."""
    pool: BufferPool = field(default_factory=BufferPool)
    """Memory of batches that were used up."""

    def batch(self, slots: Slots) -> Batch:
        """Return the batch of these slots; ValueError names shard and key of a sample that cannot be used."""
        batch = batches.empty(
            self.config, len(slots.shard), num_classes=self.num_classes, pool=self.pool, pinned=self.pinned
        )
        # numpy writes a row in a fifth of the time that torch takes; the memory is the same.
        arrays = {name: array.numpy() for name, array in batch.arrays.items()}
        lengths = {name: length.numpy() for name, length in batch.lengths.items()}
        labels, weights = batch.labels.numpy(), batch.weights.numpy()
        targets = {name: target.numpy() for name, target in batch.targets.items()}
        keys = [""] * len(labels)
        for slot, (key, sample, weight) in enumerate(self._samples(slots)):
            for name, array in arrays.items():
                lengths[name][slot] = length = sample.lengths.get(name, 0)
                array[slot] = sample.arrays[name] if length else 0
            labels[slot], weights[slot], keys[slot] = sample.label, weight, key
            if "text" in sample.targets:
                targets["text"][slot] = sample.targets["text"]
            if "label" in targets:
                targets["label"][slot, list(_labels(sample))] = 1
        if self.config.mix is not None and self.draws_key is not None:
            mix_pairs(arrays["image"], targets["label"], self.config.mix, self._generators_of_pairs(slots))
        return replace(batch, keys=tuple(keys))

    def _samples(self, slots: Slots) -> Iterator[tuple[str, Sample, float]]:
        """Yield key, sample and weight of every slot."""
        generators = None if self.draws_key is None else draws.SampleDraws(self.draws_key)
        columns = (slots.shard, slots.sample, slots.epoch, slots.position, slots.weight)
        for shard, number, epoch, position, weight in zip(*(column.tolist() for column in columns), strict=True):
            if weight:
                rng = generators.at(epoch, position) if generators else None
                key, sample = self._sample(shard, number, rng)
                yield key, sample, sample.weight * weight
            else:
                yield "", PADDING, 0.0

    def _generators_of_pairs(self, slots: Slots) -> Iterator[np.random.Generator]:
        """Yield a generator for each two slots, that of the first one's position."""
        assert self.draws_key is not None
        generators = draws.SampleDraws(draws.key("mix", self.draws_key))
        for epoch, position in zip(slots.epoch[::2].tolist(), slots.position[::2].tolist(), strict=True):
            yield generators.at(epoch, position)

    def _sample(self, shard: int, number: int, rng: np.random.Generator | None) -> tuple[str, Sample]:
        raw = self.reader.sample(shard, number)
        try:
            sample = prepare(raw.members, self.config, rng)
            self._check_labels(sample)
        except ValueError as error:
            raise ValueError(f"{self.reader.path(shard)}: {raw.key}: {error}") from error
        return raw.key, sample

    def _check_labels(self, sample: Sample) -> None:
        if self.num_classes and (highest := max(_labels(sample), default=0)) >= self.num_classes:
            raise ValueError(
                f"label {highest} is out of range: the manifest names {self.num_classes} classes, "
                f"0 to {self.num_classes - 1}; mend the table and build the shards again"
            )


def _labels(sample: Sample) -> tuple[int, ...]:
    """Return all labels of a sample."""
    return sample.labels if sample.label == NO_LABEL else (*sample.labels, sample.label)
