"""Samples to be answered: of shard folders, and of files that are in no shard, opened as batches of one order."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data_shards.building.raw_sample import Content
from data_shards.config import DataConfig
from data_shards.files.quoting import counted, cut, listed
from data_shards.format.annotations import OWN
from data_shards.format.members import RECORD, fitting
from data_shards.format.tar_walk import MAX_MEMBER_BYTES
from data_shards.loading import streams
from data_shards.loading.admission import Intake
from data_shards.loading.batch import Batch
from data_shards.loading.collate import Assembler, Source
from data_shards.loading.dataset import Dataset, numbers_of_values, served
from data_shards.loading.loader.loader import Loader
from data_shards.loading.quarantine import BadBytesError, Quarantine, one_line
from data_shards.loading.reader import Reader
from data_shards.loading.shard_folders import Places
from data_shards.order.sequence import SequentialOrder
from data_shards.sources.prediction import new_files
from data_shards.sources.prediction.new_files import NewSample, Tell

# Read in the order of the shards: no more than the last few extents are needed again.
_EXTENT_BYTES = 1 << 26


@dataclass(frozen=True)
class NewSamples:
    """The samples that a command answers, found and not yet opened."""

    config: DataConfig
    """The data section, with the inputs that are read."""
    datasets: tuple[Dataset, ...] = ()
    """The splits of shard folders."""
    files: tuple[NewSample, ...] = field(default=(), repr=False)
    """The samples that are in no shard; they come after those of shards."""

    @property
    def counts(self) -> list[list[int]]:
        """Samples by source and shard."""
        found = [dataset.split.shards.num_samples.tolist() for dataset in self.datasets]
        return [*found, [len(self.files)]] if self.files else found

    @property
    def num_samples(self) -> int:
        """Samples altogether."""
        return sum(map(sum, self.counts))

    @cached_property
    def _order(self) -> SequentialOrder:
        # Of batches of one, since only the places of samples are asked.
        return SequentialOrder(self.counts, 1, ())

    def shard_of(self, number: int) -> str:
        """Return the shard of a sample by its number; empty where it is in none."""
        source, shard, _ = (int(each[0]) for each in self._order.located(np.array([number])))
        if source >= len(self.datasets):
            return ""
        return str(self.datasets[source].split.shards[shard].name)

    def dataset_of(self, number: int) -> int:
        """Return the place among `datasets` of the one that a sample is in; -1 of what is in none."""
        if number >= self.num_samples:
            return -1
        source = int(self._order.located(np.array([number]))[0][0])
        return source if source < len(self.datasets) else -1

    def loader(self, batch: int, batches: Sequence[int], bad: Path | None, *, pinned: bool = False) -> Loader:
        """Return a loader of these batches, for `clips`; bad samples are listed in a file, or errors."""
        sources = [
            Source(
                str(dataset.folder),
                dataset.split_name,
                Reader(dataset.folder, dataset.split, live_bytes=_EXTENT_BYTES),
                dataset.intake,
                dataset.num_left_out,
                None,
            )
            for dataset in self.datasets
        ]
        if self.files:
            # Files bring no truth: the targets that shards must have are not asked of them.
            intake = Intake(replace(self.config, labels=(), values=(), multi_label=False), OWN, 0, {})
            sources.append(Source("", "", NewSampleReader(self.files, self.config), intake, 0, None))
        order = SequentialOrder(self.counts, batch, batches, self.config.num_clips)
        # However many are bad: those that are not are answered.
        quarantine = Quarantine(bad, 1.0, {}) if bad else None
        num_classes = max((len(dataset.label_names) for dataset in self.datasets), default=0)
        there = {str(dataset.folder): dataset.values for dataset in self.datasets}
        num_values = numbers_of_values(self.config.values, there)
        assembler = Assembler(sources, self.config, num_classes, num_values, quarantine, pinned)
        # No share of a world: several processes divide the samples by `batches`, and may be a different number after a
        # kill.
        return Loader(assembler, order, rank=0, world_size=1, last_step=order.steps_per_epoch - 1)

    def clips(self, loader: Loader, place: int) -> list[Batch]:
        """Return the batch at a place among those of a loader, once for each clip that an evaluation reads."""
        num_clips = self.config.num_clips
        return [loader(step) for step in range(place * num_clips, (place + 1) * num_clips)]


def of_prediction(config: DataConfig, inputs: Sequence[str]) -> DataConfig:
    """Return the data section with which samples are read that need no targets, with these inputs alone.

    Labels and values stay: shards that have them say what is true.
    """
    # Nothing below is random or mixed: an answer depends on its own sample alone.
    sections = {name: config.inputs[name].of_prediction() for name in inputs}
    return replace(
        config,
        inputs=sections,
        require=tuple(name for name in config.require if name in sections),
        modality_dropout={},
        mixup=None,
        datasets={},
    )


def find(paths: Sequence[str], config: DataConfig, split: str, tell: Tell) -> NewSamples:
    """Return what is named: folders of shards by their manifest, else files, folders and tables.

    ValueError in one sentence for what is nothing of these, and where there is no sample.
    """
    for path in paths:
        _refuse_tar(path)
    # A remote place can only be one of shards: other files are read from this machine's disks.
    shards = [path for path in paths if "://" in path or _is_shards(path)]
    datasets = tuple(_dataset(path, config, split, tell) for path in shards)
    files = new_files.find([path for path in paths if path not in shards], config, tell)
    _tell_absent(files, config, tell)
    found = NewSamples(_with_targets_of(config, datasets), datasets, tuple(files))
    if not found.num_samples:
        raise ValueError(f"{listed(list(paths))}: no sample is there to be answered")
    return found


def refuse_absent(paths: Sequence[str], config: DataConfig, split: str) -> None:
    """Raise ValueError for a path at which nothing is, and for shards without the split; nothing else is read.

    What is at a URL is not asked: another machine may have the right to read it.
    """
    for path in paths:
        _refuse_tar(path)
        if "://" in path:
            continue
        if not Path(path).exists():
            raise ValueError(f"{path}: no such file or folder")
        if _is_shards(path):
            places = Places(config)
            places.at(path).manifest().split(split or streams.eval_split(replace(config, shards=path), places))


def _is_shards(path: str) -> bool:
    return (Path(path) / "manifest.json").is_file()


def _refuse_tar(path: str) -> None:
    if path.lower().endswith(".tar"):
        raise ValueError(f"{path}: is a shard; name its folder, the one with manifest.json, and --split")


def _tell_absent(files: Sequence[NewSample], config: DataConfig, tell: Tell) -> None:
    """Tell of inputs that no file is for."""
    suffixes = {suffix for sample in files for suffix, _ in sample.members}
    fields = {RECORD for sample in files if sample.fields}
    there = [name for name, each in config.ordered_inputs.items() if any(fitting(each.patterns, suffixes | fields))]
    absent = [name for name in config.ordered_inputs if name not in there]
    if there and absent:
        tell(
            f"no sample has {', '.join(absent)}; answers are given without (a table with the columns "
            f"{', '.join(config.ordered_inputs)} names the files of one sample together)"
        )


def _with_targets_of(config: DataConfig, datasets: Sequence[Dataset]) -> DataConfig:
    """Return the section with the targets that at least one of the folders has."""
    there = [dataset.config for dataset in datasets]
    return replace(
        config,
        labels=tuple(name for name in config.labels if any(name in each.labels for each in there)),
        values=tuple(name for name in config.values if any(name in each.values for each in there)),
        multi_label=any(each.multi_label for each in there),
    )


def _dataset(location: str, config: DataConfig, split: str, tell: Tell) -> Dataset:
    config = replace(config, shards=location)
    places = Places(config)
    name = split or streams.eval_split(config, places)
    shards = places.at(location).manifest()
    config = replace(
        config,
        labels=tuple(label for label in config.labels if label in shards.named_labels),
        values=tuple(value for value in config.values if value in shards.values),
        multi_label=config.multi_label and bool(shards.label_names),
    )
    dataset = served(places.at(location), name, config)
    there = dataset.config.inputs
    if not there:
        wanted = "; ".join(f"{of} reads .{', .'.join(each.patterns)}" for of, each in config.ordered_inputs.items())
        found = listed([f".{suffix}" for suffix, _ in dataset.split.shards.suffixes.most_common(10)])
        raise ValueError(f"{location}: no sample of split {name!r} has an input of the run ({wanted}), only {found}")
    if missing := [each for each in config.ordered_inputs if each not in there]:
        tell(f"{location}: no sample of split {name!r} has {', '.join(missing)}; answers are given without")
    if dataset.num_left_out:
        tell(f"{location}: data.require leaves out {counted(dataset.num_left_out, 'sample')} of split {name!r}")
    return dataset


class NewSampleReader:
    """Samples that are in no shard, as a loader reads them: all of one shard."""

    num_shards = 1

    def __init__(self, samples: Sequence[NewSample], config: DataConfig) -> None:
        self._samples, self._required = samples, config.required_members
        self._sections = tuple(config.ordered_inputs.values())

    def num_samples(self, shard: int) -> int:  # noqa: ARG002 - there is one
        """Return how many there are."""
        return len(self._samples)

    def key(self, shard: int, sample: int) -> str:  # noqa: ARG002
        """Return the key of a sample."""
        return self._samples[sample].key

    def sample(self, shard: int, sample: int) -> tuple[str, Mapping[str, bytes]]:  # noqa: ARG002
        """Return key and members of a sample; BadBytesError says why it has none."""
        found = self._samples[sample]
        if found.fault:
            raise BadBytesError(found.fault)
        members = dict(_read(found.members))
        try:
            for section in self._sections:
                # What the network does not read but answers, such as values at given places, is what new samples lack.
                lacking = section.stand_in(members) if not any(fitting(section.patterns, members)) else None
                members |= [lacking] if lacking else []
        except ValueError as error:
            raise BadBytesError(one_line(error)) from error
        if found.fields:
            # As a record, in which the inputs of a run look for fields.
            members[RECORD] = json.dumps(dict(found.fields)).encode()
        for name, patterns in self._required:
            if not any(fitting(patterns, members)):
                raise BadBytesError(f"lacks {name}, which data.require asks for")
        return found.key, members

    def name(self, shard: int) -> str:  # noqa: ARG002
        """Return nothing: a key names its file."""
        return ""

    def read_ahead(self, shards: list[int], samples: list[int]) -> None:
        """Do nothing: each is a file of its own."""

    def fetch(self, shard: int) -> None:
        """Do nothing: they are near."""

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def _read(members: Iterable[tuple[str, Content]]) -> Iterator[tuple[str, bytes]]:
    for suffix, content in members:
        # By its size on the disk: 100 GB must not be read to be refused.
        if content.num_bytes > MAX_MEMBER_BYTES:
            raise BadBytesError(f"{content.num_bytes} bytes; a file of a sample has at most {MAX_MEMBER_BYTES}")
        try:
            data = content.read()
        except OSError as error:
            raise BadBytesError(f"{cut(content.origin)}: {error.strerror or one_line(error)}") from error
        except ValueError as error:
            raise BadBytesError(f"{cut(content.origin)}: {one_line(error)}") from error
        if data is not None:
            yield suffix, data
