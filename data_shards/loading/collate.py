"""From slots to a batch: reads, decodes and transforms each sample, and writes it into its row of the flat buffers.

    slot        0       1       2                        3
    training    good    good    bad: a substitute        good      weights 1 1 1 1
    evaluation  good    good    bad: padding             padding   weights 1 1 0 0

One buffer an input and not a list of tensors: between processes, a batch of many small tensors took twice the CPU time.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_shards.config import DataConfig
from data_shards.files.quoting import cut
from data_shards.format.annotations import NO_LABEL
from data_shards.format.buffers import BufferPool
from data_shards.loading import batch as batches
from data_shards.loading.admission import BadSampleError, Intake, all_labels
from data_shards.loading.batch import Batch, Sample
from data_shards.loading.quarantine import BadSample, Quarantine
from data_shards.loading.reader import SampleReader
from data_shards.modalities.mixup import mix_pairs
from data_shards.order import random_numbers
from data_shards.order.sample_order import Slots

PADDING = Sample({}, {})
# So many in a row are no accident: where 0.1 % are bad, the chance is 10^-48.
_MAX_SUBSTITUTES = 16


@dataclass(frozen=True)
class Source:
    """A dataset, opened."""

    name: str
    split: str
    reader: SampleReader
    intake: Intake
    num_left_out: int
    """Samples of the split that are not read, since they lack what data.require names."""
    draws_key: int | None
    """Key of the random draws of training; None decodes without any, for evaluation."""


@dataclass(frozen=True)
class Assembler:
    """Makes batches; threads share one."""

    sources: Sequence[Source]
    config: DataConfig
    num_classes: int
    """Length of a vector over the classes; 0 where the data name none."""
    num_values: Mapping[str, int] = field(default_factory=dict)
    """The number of numbers of each of data.values."""
    quarantine: Quarantine | None = None
    """The list of bad samples; None makes the first bad sample an error."""
    pinned: bool = False
    """Whether the batch lies in page-locked memory, from which a copy to the GPU does not block."""
    pool: BufferPool = field(default_factory=BufferPool)
    """Memory of batches that were used up."""

    def batch(self, slots: Slots) -> Batch:
        """Return the batch of these slots; ValueError names shard and key of a sample that cannot be used."""
        batch = batches.empty(
            self.config,
            len(slots.shard),
            num_classes=self.num_classes,
            num_values=self.num_values,
            pool=self.pool,
            pinned=self.pinned,
        )
        # numpy writes a row in a fifth of the time that torch takes; the memory is the same.
        arrays = {name: array.numpy() for name, array in batch.arrays.items()}
        lengths = {name: length.numpy() for name, length in batch.lengths.items()}
        labels, weights = batch.labels.numpy(), batch.weights.numpy()
        targets = {name: target.numpy() for name, target in batch.targets.items()}
        keys, num_cut = [""] * len(labels), Counter[str]()
        for slot, (key, sample, weight) in enumerate(self._samples(slots)):
            for name, array in arrays.items():
                # Zeros are written too: the memory comes from an earlier batch and still holds it.
                array[slot] = sample.arrays.get(name, 0)
            for name, length in lengths.items():
                length[slot] = sample.lengths.get(name, 0)
            labels[slot], weights[slot], keys[slot] = sample.label, weight, key
            num_cut.update(sample.is_cut)
            for name, target in sample.targets.items():
                targets[name][slot] = target
            if "label" in targets:
                targets["label"][slot, list(all_labels(sample))] = 1
            for name in self.config.labels:
                targets[name][slot] = sample.named_labels.get(name, NO_LABEL)
        # Pairs are slots 2i and 2i + 1 of the global batch: a rank begins at an even slot, so every number of ranks
        # mixes the same two images.
        if self.config.mixup is not None and self.sources[0].draws_key is not None:
            mix_pairs(
                next(iter(arrays.values())), targets["label"], self.config.mixup, self._generators_of_pairs(slots)
            )
        return replace(batch, keys=tuple(keys), num_cut=dict(num_cut))

    def _samples(self, slots: Slots) -> Iterator[tuple[str, Sample, float]]:
        """Yield key, sample and weight of every slot; padding for a bad sample of an evaluation."""
        for number, source in enumerate(self.sources):
            wanted = (slots.source == number) & (slots.weight > 0)
            source.reader.read_ahead(slots.shard[wanted].tolist(), slots.sample[wanted].tolist())
        # One object a batch: a generator is moved to a position, and two threads must not move the same one.
        generators = [source.draws_key and random_numbers.SampleDraws(source.draws_key) for source in self.sources]
        columns = (slots.source, slots.shard, slots.sample, slots.epoch, slots.position, slots.weight)
        for number, shard, sample, epoch, position, weight in zip(*(c.tolist() for c in columns), strict=True):
            generator = generators[number]
            rng = generator.at(epoch, position) if generator else None
            # Without draws an epoch is a pass of the evaluation, over another clip of each sample.
            clip = 0 if generator else epoch
            found = self._found(self.sources[number], shard, sample, rng, clip) if weight else None
            if weight and generator and found is None:
                substitutes = random_numbers.key("substitute", self.sources[number].draws_key or 0, epoch, position)
                # The generator is set back: what the bad sample drew before it failed must not reach the substitute.
                found = self._substitute(self.sources[number], shard, substitutes, generator.at(epoch, position))
            if found:
                yield found[0], found[1], found[1].weight * weight
            else:
                yield "", PADDING, 0.0

    def _substitute(
        self, source: Source, shard: int, substitutes: int, rng: np.random.Generator
    ) -> tuple[str, Sample] | None:
        """Return another sample of the shard, which is at hand, or of any where that shard has none that is good.

        Which one is a function of the position: the same on every rank and after a resume.
        """
        # Three words a try: 0 to 15 choose in this shard, whose extents are in memory; 16 to 31 choose in the shards
        # that 32 to 47 name. In a shard whose samples are all bad, the first sixteen cannot help.
        reader = source.reader
        words = random_numbers.words(substitutes, 0, 3 * _MAX_SUBSTITUTES).tolist()
        for number, word in enumerate(words[: 2 * _MAX_SUBSTITUTES]):
            other = shard if number < _MAX_SUBSTITUTES else words[number + _MAX_SUBSTITUTES] % reader.num_shards
            found = self._found(source, other, word % reader.num_samples(other), rng)
            if found:
                return found
        raise ValueError(
            f"{reader.name(shard)}: {_MAX_SUBSTITUTES} samples of it in a row are bad, and so are as many of other "
            "shards; copy the shards again"
        )

    def _generators_of_pairs(self, slots: Slots) -> Iterator[np.random.Generator]:
        """Yield a generator for each two slots, that of the first one's position."""
        # A key of its own: a pair must not be mixed by the numbers that its first sample was cropped by.
        generators = [
            random_numbers.SampleDraws(random_numbers.key("mix", source.draws_key or 0)) for source in self.sources
        ]
        columns = (slots.source[::2], slots.epoch[::2], slots.position[::2])
        for source, epoch, position in zip(*(column.tolist() for column in columns), strict=True):
            yield generators[source].at(epoch, position)

    def _found(
        self, source: Source, shard: int, number: int, rng: np.random.Generator | None, clip: int = 0
    ) -> tuple[str, Sample] | None:
        """Return key and sample; None where it is bad and has been listed, ValueError where there is no list."""
        try:
            return source.intake.sample(source.reader, shard, number, rng, clip=clip)
        except BadSampleError as error:
            name = source.reader.name(shard)
            # Without a list nobody would learn that samples were replaced.
            if self.quarantine is None:
                # What is in no shard has none to be named.
                where = f"{name}: {cut(error.key)}" if name else cut(error.key)
                raise ValueError(f"{where}: {error}") from error
            self.quarantine.add(BadSample(name, error.key, source.split, source.name, error.input, str(error)))
            return None
