"""Reads everything that a shard folder holds and reports what is bad: hashes, checksums, every sample decoded."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from data_shards import decode, manifest
from data_shards.adopt import modalities
from data_shards.extents import EXTENT_BYTES
from data_shards.folder import LocalFolder
from data_shards.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.members import LABEL, content_of
from data_shards.reader import Reader
from data_shards.tar_index import TarIndex

_RARELY = 0.05
"""Where no more of a split's samples lack a file, they have lost it; one sample always may."""


@dataclass(frozen=True)
class Bad:
    """Something that is not as it should be."""

    shard: str
    key: str
    """Key of the sample; empty where the whole shard is meant."""
    reason: str


@dataclass
class Report:
    """What was found."""

    samples: int = 0
    bad: list[Bad] = field(default_factory=list)
    shapes: dict[str, list[list[int]]] = field(default_factory=dict)
    """By modality the least and the greatest length of each axis after decoding."""
    labels: dict[str, int] = field(default_factory=dict)
    """Samples by class name."""

    @property
    def ok(self) -> bool:
        """Whether nothing is bad."""
        return not self.bad

    def add(self, other: "Report") -> None:
        """Take over what another report counted."""
        self.samples += other.samples
        self.bad += other.bad
        for name, (least, greatest) in other.shapes.items():
            self._widen(name, least, greatest)
        for name, count in other.labels.items():
            self.labels[name] = self.labels.get(name, 0) + count

    def add_shape(self, modality: str, shape: tuple[int, ...]) -> None:
        """Count the shape of one decoded member."""
        self._widen(modality, list(shape), list(shape))

    def _widen(self, modality: str, least: list[int], greatest: list[int]) -> None:
        lowest, highest = self.shapes.get(modality, [least, greatest])
        self.shapes[modality] = [
            [min(pair) for pair in zip(lowest, least, strict=True)],
            [max(pair) for pair in zip(highest, greatest, strict=True)],
        ]


def verify(folder: Path, *, num_jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> Report:
    """Read all of a shard folder in `num_jobs` processes; ValueError only where its manifest cannot be read."""
    shards = manifest.read(folder)
    entries = [(shard, partners(shards, name)) for name, split in shards.splits.items() for shard in split.shards]
    report = Report(labels=dict.fromkeys(shards.label_names, 0))
    # Not forked: a fork of a process with threads can hang, and torch has threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_jobs, mp_context=context) as processes:
        coming = [
            processes.submit(verify_shard, folder, entry, shards.label_names, expected) for entry, expected in entries
        ]
        for number, future in enumerate(coming):
            report.add(future.result())
            if progress:
                progress(number + 1, len(entries))
    return report


def partners(shards: Manifest, split_name: str) -> frozenset[str]:
    """Return the modalities, and "label", that a sample of the split has unless it has lost a file.

    None where the shards were built here: a build knows what each sample has, and the hashes hold it fast.
    """
    if not shards.adopted:
        return frozenset()
    split = shards.split(split_name)
    counts = {**split.shards.modalities, "label": sum(split.label_counts)}
    lacking = {kind: split.num_samples - count for kind, count in counts.items()}
    most = max(1.0, _RARELY * split.num_samples)
    return frozenset(kind for kind, count in lacking.items() if count <= most and 2 * count < split.num_samples)


def verify_shard(
    folder: Path, entry: ShardEntry, label_names: tuple[str, ...], expected: frozenset[str] = frozenset()
) -> Report:
    """Read all of one shard; a sample that has not all that is expected, as partners() returns it, is bad."""
    report = Report()
    try:
        index = _checked_index(folder, entry)
    except ValueError as error:
        report.bad.append(Bad(entry.name, "", str(error)))
        return report
    report.samples = index.num_samples
    reader = Reader(LocalFolder(folder), Split(Shards.of([entry]), ()), live_bytes=4 * EXTENT_BYTES)
    for sample, key in enumerate(index.keys):
        there = modalities(index, sample) | ({"label"} if LABEL in index.members(sample) else set())
        for reason in _faults(reader, sample, expected - there, report, label_names):
            report.bad.append(Bad(entry.name, key, reason))
    return report


def _checked_index(folder: Path, entry: ShardEntry) -> TarIndex:
    """Return the index of a shard whose bytes are the manifest's; ValueError says what is not."""
    LocalFolder(folder).check(Split(Shards.of([entry]), ()))
    path = folder / entry.name
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            # What is wrong with the tar says more than that its hash is another.
            TarIndex.from_tar(path)
            raise ValueError(f"{path}: its sha256 is not the manifest's; copy the shard again")
    index = TarIndex.from_tar(path)
    if hashlib.sha256(index.to_bytes()).hexdigest() != entry.index_sha256:
        raise ValueError(f"{path}: its index is not the manifest's; run `perceiver data index {folder}`")
    return index


def _faults(
    reader: Reader, sample: int, lacking: frozenset[str], report: Report, label_names: tuple[str, ...]
) -> Iterator[str]:
    """Yield what is wrong with a sample; count its shapes and its label."""
    for kind in sorted(lacking):
        yield f"has no {kind}, nearly all other samples of the split have one"
    try:
        _, members = reader.sample(0, sample)
    except ValueError as error:
        yield str(error)
        return
    for extension, content in members.items():
        try:
            if decoded := content_of(extension):
                report.add_shape(decoded, decode.check(decoded, content))
        except ValueError as error:
            yield f".{extension}: {error}"
    yield from _label_faults(members, report, label_names)


def _label_faults(members: Mapping[str, memoryview], report: Report, label_names: tuple[str, ...]) -> Iterator[str]:
    if LABEL not in members:
        return
    text = bytes(members[LABEL]).strip()
    if not text.isdigit():
        yield f"label {text[:40]!r} is not a number from 0 on"
    elif label_names and int(text) >= len(label_names):
        yield f"label {int(text)} is out of range: the manifest names {len(label_names)} classes"
    elif label_names:
        name = label_names[int(text)]
        report.labels[name] = report.labels.get(name, 0) + 1
