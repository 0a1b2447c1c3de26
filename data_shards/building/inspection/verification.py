"""Reads everything that a shard folder holds and reports what is bad: hashes, checksums, every sample decoded.

    size --> SHA-256 of the tar --> its index --> each sample as a training reads it --> each member decoded whole
    bad: the shard                                bad: the sample; incomplete: without what nearly all others have

What a bad sample is, Intake alone says: training, evaluation and this module ask it in the same words.
"""

import hashlib
import shlex
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_shards.building import worker_processes
from data_shards.config import DataConfig
from data_shards.files.plugin_files import fault_in_sample
from data_shards.format.extents import EXTENT_BYTES
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.format.members import fitting
from data_shards.format.tar_index import TarIndex
from data_shards.loading.admission import BadSampleError, Intake, all_labels
from data_shards.loading.batch import Sample
from data_shards.loading.dataset import inputs_in
from data_shards.loading.quarantine import one_line
from data_shards.loading.reader import Reader
from data_shards.loading.streams import TRAIN
from data_shards.modalities.kinds.catalogue import inputs_of
from data_shards.modalities.modality import select
from data_shards.storage.local_folder import LocalFolder
from data_shards.storage.required_inputs import has_all

_RARELY = 0.05
"""The largest fraction of a split's samples that counts as having lost a file; one sample always counts."""


@dataclass(frozen=True)
class Bad:
    """Something that is not as it should be."""

    shard: str
    key: str
    """Key of the sample; empty where the whole shard is meant."""
    reason: str


@dataclass
class Report:
    """The result of a verification."""

    samples: int = 0
    left_out: int = 0
    """The number of these samples that data.require of the configuration drops."""
    bad: list[Bad] = field(default_factory=list)
    """Shards, and samples that a training would refuse."""
    incomplete: list[Bad] = field(default_factory=list)
    """Samples that a training takes, though they seem to have lost a file."""
    shapes: dict[str, list[list[int]]] = field(default_factory=dict)
    """The smallest and largest length of each axis after decoding, by input or input.role."""
    labels: dict[str, int] = field(default_factory=dict)
    """Samples by class name."""

    @property
    def ok(self) -> bool:
        """Return whether nothing is bad."""
        return not self.bad

    def add(self, other: "Report") -> None:
        """Take over what another report counted."""
        self.samples += other.samples
        self.left_out += other.left_out
        self.bad += other.bad
        self.incomplete += other.incomplete
        for name, (least, greatest) in other.shapes.items():
            self._widen(name, least, greatest)
        for name, count in other.labels.items():
            self.labels[name] = self.labels.get(name, 0) + count

    def count_labels(self, names: Iterable[str]) -> None:
        """Count the classes of one sample."""
        for name in names:
            self.labels[name] = self.labels.get(name, 0) + 1

    def add_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Count the shape of one decoded member."""
        self._widen(name, list(shape), list(shape))

    def _widen(self, name: str, least: list[int], greatest: list[int]) -> None:
        lowest, highest = self.shapes.get(name, [least, greatest])
        if len(lowest) != len(least):
            # Looked at without a run, an array may have other axes in every sample.
            self._widen(f"{name} of {len(least)} axes", least, greatest)
            return
        self.shapes[name] = [
            [min(pair) for pair in zip(lowest, least, strict=True)],
            [max(pair) for pair in zip(highest, greatest, strict=True)],
        ]


def verify(
    folder: Path,
    config: DataConfig | None = None,
    *,
    num_jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read all of a shard folder in `num_jobs` processes; ValueError only where its manifest cannot be read.

    A sample is bad where a training with that configuration of its data would find it bad; without one, a training on
    all that its split holds.
    """
    place = LocalFolder(folder)
    shards = place.manifest()
    tasks = [
        (entry, intake(shards, name, config), partners(shards, name))
        for name, split in shards.splits.items()
        for entry in split.shards
    ]
    # A class without a sample is shown as 0, not left out.
    report = Report(labels=dict.fromkeys(shards.label_names, 0))
    with worker_processes.start(num_jobs) as pool:
        coming = [pool.submit(verify_shard, place, *task, shards.label_names) for task in tasks]
        for number, (future, (entry, *_)) in enumerate(zip(coming, tasks, strict=True)):
            try:
                report.add(future.result())
            except BrokenProcessPool as error:
                raise ValueError(
                    f"{place.path(entry)}: a process was killed that read this shard or one after it; "
                    "see how much memory it takes with --jobs 1"
                ) from error
            if progress:
                progress(number + 1, len(tasks))
    return report


def intake(shards: Manifest, split_name: str, config: DataConfig | None) -> Intake:
    """Return what takes the samples of a split in a training with that configuration, or on all that it has."""
    split = shards.split(split_name)
    if config is None:
        config = DataConfig(
            inputs=inputs_of(split.shards.suffixes),
            labels=tuple(shards.named_labels),
            values=tuple(shards.values),
        )
    elif split_name != TRAIN:
        config = config.of_evaluation()
    return Intake.of(shards, config.only(inputs_in(split, config)))


def partners(shards: Manifest, split_name: str) -> frozenset[str]:
    """Return the inputs, and "label", that a sample of the split has unless it has lost a file.

    None where the shards were built here: a build knows what each sample has, and the hashes hold it fast.
    """
    if not shards.adopted:
        return frozenset()
    split = shards.split(split_name)
    sections = inputs_of(split.shards.suffixes).items()
    counts = {name: int(split.shards.num_samples_with(section.patterns).sum()) for name, section in sections}
    # More labels than samples: some have several, which would hide that others have none.
    if (num_labels := sum(split.label_counts)) <= split.num_samples:
        counts["label"] = num_labels
    lacking = {kind: split.num_samples - count for kind, count in counts.items()}
    most = max(1.0, _RARELY * split.num_samples)
    return frozenset(kind for kind, count in lacking.items() if count <= most and 2 * count < split.num_samples)


def verify_shard(
    folder: LocalFolder,
    entry: ShardEntry,
    intake: Intake,
    expected: frozenset[str] = frozenset(),
    label_names: tuple[str, ...] = (),
) -> Report:
    """Read all of one shard; a sample that has not all that is expected, as partners() returns it, is incomplete."""
    report = Report()
    try:
        index = _checked_index(folder, entry)
    except ValueError as error:
        report.bad.append(Bad(entry.name, "", str(error)))
        return report
    report.samples = index.num_samples
    wanted = intake.config.required_members
    good = np.flatnonzero(has_all(index, wanted)).tolist()
    report.left_out = index.num_samples - len(good)
    # A shard is read once and in order: a few extents do.
    reader = Reader(folder, Split(Shards.of([entry]), (), wanted), live_bytes=4 * EXTENT_BYTES)
    for number, place in enumerate(good):
        key = index.keys[place]
        try:
            # Without a generator: what is random in training may hide a part of a sample that is bad.
            _, sample = intake.sample(reader, 0, number)
        except BadSampleError as error:
            report.bad.append(Bad(entry.name, key, str(error)))
            continue
        if reason := _fault_of_the_rest(reader, number, sample, intake.config, report):
            report.bad.append(Bad(entry.name, key, reason))
            continue
        labels = all_labels(sample)
        report.count_labels(label_names[label] for label in labels if label_names)
        suffixes = index.members(place)
        there = {name for name, section in inputs_of(suffixes).items() if any(fitting(section.patterns, suffixes))}
        for kind in sorted(expected - there - ({"label"} if labels else set())):
            report.incomplete.append(Bad(entry.name, key, f"has no {kind}, nearly all other samples have one"))
    return report


def _checked_index(folder: LocalFolder, entry: ShardEntry) -> TarIndex:
    """Return the index of a shard whose bytes are the manifest's; ValueError says what is not."""
    # Its size first: a shard that was cut short is called that before all of it is hashed.
    folder.check(Split(Shards.of([entry]), ()))
    path = folder.path(entry)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            # What is wrong with the tar says more than that its hash is another.
            TarIndex.from_tar(path)
            raise ValueError(f"{path}: its sha256 is not the manifest's; copy the shard again")
    index = TarIndex.from_tar(path)
    if hashlib.sha256(index.to_bytes()).hexdigest() != entry.index_sha256:
        raise ValueError(
            f"{path}: its index is not the manifest's; run `perceiver data index {shlex.quote(str(folder))}`"
        )
    return index


def _fault_of_the_rest(reader: Reader, number: int, sample: Sample, config: DataConfig, report: Report) -> str:
    """Count the shapes of a sample's members, decoded whole; return the fault of parts that were not read so far.

    Training decodes different frames of a clip each time, and in the end all of them.
    """
    members = reader.sample(0, number)[1]
    for name in sample.lengths:
        section = config.ordered_inputs[name]
        for role, member in select(section, members).items():
            try:
                report.add_shape(f"{name}.{role}" if role else name, section.decoded_shape(role, member.content))
            except Exception as error:  # as Intake: whatever a decoder does, the sample is bad
                if fault := fault_in_sample(error):
                    raise fault.of_sample(reader.key(0, number), reader.name(0)) from error
                return f".{member.suffix}: {one_line(error)}"
    return ""
