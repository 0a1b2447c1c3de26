"""The rule that decides whether a sample is usable: the same for training, evaluation and verify."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from data_shards.config import DataConfig
from data_shards.files.plugin_files import fault_in_sample
from data_shards.files.quoting import counted, shown
from data_shards.format.annotations import NO_LABEL, Records
from data_shards.format.manifest import Manifest
from data_shards.loading.batch import Sample
from data_shards.loading.quarantine import BadBytesError, one_line
from data_shards.loading.reader import SampleReader
from data_shards.loading.sample import BadMemberError, prepare


class BadSampleError(ValueError):
    """A sample that cannot be used."""

    def __init__(self, key: str, name: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key
        self.input = name
        """The input that cannot be decoded; empty where it is no single one."""


@dataclass(frozen=True)
class Intake:
    """Takes samples of a dataset or refuses them."""

    config: DataConfig
    """The data section, with only the inputs that are read from this dataset."""
    records: Records
    """The fields that are taken from the samples' records."""
    num_classes: int
    """Labels must be below; 0 where the dataset names no classes."""
    named_classes: Mapping[str, int]
    """The number of classes of each further label."""
    num_values: Mapping[str, int] = field(default_factory=dict)
    """The number of numbers of each value."""

    @staticmethod
    def of(shards: Manifest, config: DataConfig) -> "Intake":
        """Return what takes samples of these shards, for a configuration of inputs that they have."""
        named_classes = {name: len(classes) for name, classes in shards.named_labels.items()}
        return Intake(config, shards.records, len(shards.label_names), named_classes, shards.values)

    def sample(
        self, reader: SampleReader, shard: int, number: int, rng: np.random.Generator | None = None, *, clip: int = 0
    ) -> tuple[str, Sample]:
        """Return key and sample, with a generator as training varies it; `clip` counts those of an evaluation.

        BadSampleError where the sample cannot be used; another ValueError where its shard is at fault.
        """
        try:
            key, members = reader.sample(shard, number)
        except BadBytesError as error:
            # The key comes from the index, which has a hash of its own: the sample's bytes cannot be trusted for it.
            raise BadSampleError(reader.key(shard, number), "", str(error)) from error
        try:
            sample = prepare(members, self.config, rng, records=self.records, clip=clip)
            self._check(sample)
        # Any: whatever the bytes of one sample do to a decoder, the run goes on without that sample.
        except Exception as error:
            if fault := fault_in_sample(error):
                raise fault.of_sample(key, reader.name(shard)) from error
            name = error.input if isinstance(error, BadMemberError) else ""
            raise BadSampleError(key, name, one_line(error)) from error
        return key, sample

    def _check(self, sample: Sample) -> None:
        # A row of zeros in every input would be trained on as if it were data.
        if not sample.lengths:
            wanted = ", ".join(self.config.ordered_inputs) or "the inputs that are read"
            raise ValueError(f"has none of {wanted}")
        # On the host, where it costs nothing: on a GPU an index out of range ends the process without its sample's
        # name.
        if self.num_classes and (highest := max(all_labels(sample), default=0)) >= self.num_classes:
            raise _out_of_range(f"label {highest}", self.num_classes)
        for name in self.config.values:
            found, expected = len(sample.targets.get(name, ())), self.num_values.get(name, 0)
            if name in sample.targets and found != expected:
                raise ValueError(f"value {shown(name)} has {counted(found, 'number')}, the manifest says {expected}")
        for name, label in sample.named_labels.items():
            if label >= self.named_classes.get(name, 0):
                raise _out_of_range(f"label {shown(name)} {label}", self.named_classes.get(name, 0))


def all_labels(sample: Sample) -> tuple[int, ...]:
    """Return all labels of a sample, other than those by name."""
    return sample.labels if sample.label == NO_LABEL else (*sample.labels, sample.label)


def _out_of_range(found: str, num_classes: int) -> ValueError:
    return ValueError(
        f"{found} is out of range: the manifest names {counted(num_classes, 'class')}, 0 to {num_classes - 1}; "
        "correct the table and build the shards again"
    )
