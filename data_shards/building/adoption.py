"""Adopts tars that webdataset, img2dataset or GNU tar wrote: an index of each, and a manifest.

Nothing of the data set is changed, and nothing of it is skipped in silence: what is not read is counted and told.

    FOLDER/0.tar         split train              FOLDER/a/b/0.tar, 0.tar.gz, .hidden/0.tar      told
    FOLDER/Test/0.tar    split test               FOLDER/0.idx, manifest.json                    written, or in OUT
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_shards.building.adoption_counts import LABELS_ALONE, Labels, Members
from data_shards.building.splits import TRAIN, split_of
from data_shards.files.quoting import counted, cut
from data_shards.format import manifest
from data_shards.format.annotations import Records
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.format.members import LABEL, RECORD
from data_shards.format.shard_table import kind_of
from data_shards.format.tar_index import MAGIC, TarIndex
from data_shards.storage.local_folder import refuse_outside

_NUM_THREADS = 4
_NOT_SPLITS = (".", "$", "@", "__")
"""Names that systems give to what they put beside a user's files begin with these."""
# Compressed ones, too: they are not read, but must be told.
_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|lz4))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_NUM_SHOWN = 5
_NUM_SUFFIXES = 64


@dataclass(frozen=True)
class _Adopted:
    """A tar as its manifest will list it, and what was counted in it."""

    entry: ShardEntry
    members: Members
    labels: tuple[Labels, ...]
    """One entry for each way to read the records that is considered."""


def index(
    folder: Path,
    *,
    records: Records | None = None,
    index_folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Index the tars of a folder and write its manifest; ValueError names the first bad tar and counts the others.

    Tars in a folder of their own, such as train/ or Train/, are the split of that name; tars in `folder` itself are
    "train".
    `records` says what is taken of the samples' records. None takes what was taken before, where the folder has a
    manifest, and else nothing; only records that hold labels alone are labels where there are no others. Indexes and
    manifest go to `index_folder` where it is given, and nothing is written in `folder`. `tell` is given each sentence
    that a user should read.
    """
    out = index_folder or folder
    tars = _tars(folder, tell)
    _refuse_overwriting(out, [_index_path(tar, folder, out) for tar in tars])
    before = _before(out)
    # A folder that is indexed again, after tars were added, keeps what was asked for the first time.
    taken = before.records if records is None and before else records
    # Both ways are counted in one pass, since only its end tells which holds, and reading the tars is what takes long.
    ways = [Records() if taken is None else taken]
    if records is None and not taken:
        ways.append(LABELS_ALONE)
    splits = _adopted(tars, folder, out, ways, progress)
    members, labels = _totals(splits, ways)
    chosen = int(len(ways) > 1 and members.records_hold_labels_alone and not labels[0].counts and not labels[1].num_bad)
    if chosen:
        tell(f"records hold labels alone, and nothing else gives any: taken as with --labels-from {ways[1].labels}")
    for sentence in (*members.sentences(ways[chosen]), *labels[chosen].sentences()):
        tell(sentence)
    if not labels[chosen].num_labelled:
        tell("no sample has a label: there is no .cls member that holds one, and no record gives one")
    if splits.keys() == {TRAIN}:
        tell(f"there is no split but {TRAIN}, so nothing can be evaluated; tars in a folder test/ are the split test")
    found = _manifest(splits, chosen, labels[chosen], before, "" if out == folder else str(folder.resolve()))
    manifest.write(found, out)
    return found


def describe(path: Path, folder: Path, index: TarIndex) -> ShardEntry:
    """Return the manifest's entry of a tar with that index."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardEntry(
        name=path.relative_to(folder).as_posix(),
        num_samples=index.num_samples,
        num_bytes=index.tar_bytes,
        sha256=sha256,
        index_sha256=hashlib.sha256(index.to_bytes()).hexdigest(),
        kinds=kinds_of(index),
    )


def kinds_of(index: TarIndex) -> dict[str, int]:
    """Return how many samples of a tar there are of each kind, by the suffixes of their members.

    Only its commonest suffixes count: where a name has a full stop too many, each sample may have one of its own.
    """
    numbers = Counter(index.extension_ids.tolist()).most_common(_NUM_SUFFIXES)
    common = {index.extensions[number] for number, _ in numbers}
    found = Counter(kind_of(common & index.members(sample).keys()) for sample in range(index.num_samples))
    return dict(sorted(found.items()))


def _tars(folder: Path, tell: Callable[[str], None]) -> dict[Path, str]:
    """Return the split of each tar; report files that look like a tar and are skipped."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name the folder that holds the tars")
    found: dict[Path, str] = {}
    passed_over: list[str] = []
    # The first two also find what lies in a linked folder, which is refused.
    for path in sorted({*folder.glob("*"), *folder.glob("*/*"), *folder.rglob("*")}):
        parts = path.relative_to(folder).parts
        if not _TAR.search(path.name):
            continue
        if path.suffix == ".tar" and len(parts) <= 2 and not path.is_dir() and not any(map(_is_a_systems, parts)):
            refuse_outside(path.parent, folder)
            refuse_outside(path, folder)
            found[path] = (split_of(parts[0]) or parts[0]) if parts[1:] else TRAIN
        else:
            passed_over.append("/".join(parts))
    told = ""
    if passed_over:
        shown = ", ".join(passed_over[:_NUM_SHOWN])
        others = f" and {len(passed_over) - _NUM_SHOWN} more" if passed_over[_NUM_SHOWN:] else ""
        told = f"skipped, because hidden, compressed, not named .tar, or more than one folder deep: {shown}{others}"
        tell(told)
    if not found:
        raise ValueError(
            f"{folder}: no .tar file in it or in a folder of it; name the folder that holds the tars, unpacked if they "
            f"are compressed{told and f'; {told}'}"
        )
    # Those of the folder itself come first.
    return {path: found[path] for path in sorted(found, key=lambda path: (path.parent != folder, path))}


def _is_a_systems(name: str) -> bool:
    return name.startswith(_NOT_SPLITS)


def _index_path(tar: Path, folder: Path, out: Path) -> Path:
    return (out / tar.relative_to(folder)).with_suffix(".idx")


def _refuse_overwriting(out: Path, index_paths: Sequence[Path]) -> None:
    """Raise ValueError where a file of another program has a name that is to be written, or nothing can be."""
    remedy = "--index-folder OUT writes the index and the manifest to a folder of their own"
    # Without the last character, which is the version: an index that an earlier release wrote is ours to replace.
    foreign = [path for path in index_paths if path.exists() and not _is_ours(path, MAGIC[:-1])]
    if foreign:
        others = f", as {counted(len(foreign) - 1, 'other is', 'others are')}" if foreign[1:] else ""
        raise ValueError(f"{foreign[0]}: is an index of another program{others}; it is left as it is: {remedy}")
    path = out / "manifest.json"
    # Any program may call a file manifest.json; ours names the classes on one of its first lines.
    if path.exists() and not _is_ours(path, b'"label_names"'):
        raise ValueError(f"{path}: is a file of another program; it is left as it is: {remedy}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from error
    # Asked now: hashing the tars of a folder can take an hour, and the first file is written after that.
    if not os.access(out, os.W_OK):
        raise ValueError(f"{out}: cannot be written to; {remedy}")


def _is_ours(path: Path, mark: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return mark in file.read(1 << 12)


def _before(out: Path) -> Manifest | None:
    """Return the existing manifest; None if there is none or it cannot be read: it is then written again."""
    try:
        return manifest.read(out)
    except ValueError:
        return None


def _adopted(
    tars: Mapping[Path, str],
    folder: Path,
    out: Path,
    ways: Sequence[Records],
    progress: Callable[[int, int], None] | None,
) -> dict[str, list[_Adopted]]:
    """Return what is adopted, by split."""
    splits: dict[str, list[_Adopted]] = {split: [] for split in tars.values()}
    faults: list[ValueError] = []
    # Threads do: hashing, checksums and reading release the interpreter's lock.
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        coming = {path: threads.submit(_adopt, path, folder, out, ways) for path in tars}
        for number, (path, future) in enumerate(coming.items()):
            try:
                splits[tars[path]].append(future.result())
            except ValueError as error:
                faults.append(error)
            if progress:
                progress(number + 1, len(tars))
    if faults:
        others = f"; {len(faults) - 1} more of the {len(tars)} tars are bad" if faults[1:] else ""
        raise ValueError(f"{faults[0]}{others}") from faults[0]
    return splits


def _adopt(path: Path, folder: Path, out: Path, ways: Sequence[Records]) -> _Adopted:
    members, labels = Members(), tuple(map(Labels, ways))
    try:
        index = TarIndex.from_tar(path, members.loose)
        members.add_index(index)
        for key, noted in _notes(path, index):
            if RECORD in noted:
                members.add_record(noted[RECORD])
            for way in labels:
                way.add_sample(f"{path}: {cut(key)}", noted)
        if refusal := members.refusal():
            raise ValueError(f"{path}: {refusal}; rename the members, or leave the tar out")
        # A few bad labels are bad samples. Where not one can be read, .cls members hold something else in this data
        # set.
        if labels[0].num_bad and not labels[0].num_labelled:
            raise ValueError(f"{labels[0].first_bad}; none of its labels can be read: pack it again")
        entry = describe(path, folder, index)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the disk") from error
    try:
        # Last: of a tar that is refused nothing is written.
        _index_path(path, folder, out).parent.mkdir(parents=True, exist_ok=True)
        index.write(_index_path(path, folder, out))
    except OSError as error:
        raise _unwritable(_index_path(path, folder, out), error) from error
    return _Adopted(entry, members, labels)


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{path}: cannot be written ({error.strerror}); --index-folder OUT names another folder for index and manifest"
    )


def _notes(path: Path, index: TarIndex) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key, label and record, as they stand there, of each sample that has one of the two."""
    with path.open("rb") as file:
        for sample, key in enumerate(index.keys):
            members, found = index.members(sample), {}
            for member in members.keys() & {LABEL, RECORD}:
                file.seek(members[member][0])
                found[member] = file.read(members[member][1])
            if found:
                yield key, found


def _totals(splits: Mapping[str, Sequence[_Adopted]], ways: Sequence[Records]) -> tuple[Members, list[Labels]]:
    members, labels = Members(), [Labels(way) for way in ways]
    for shard in (shard for shards in splits.values() for shard in shards):
        members.add(shard.members)
        for total, part in zip(labels, shard.labels, strict=True):
            total.add(part)
    return members, labels


def _manifest(
    splits: Mapping[str, Sequence[_Adopted]], way: int, labels: Labels, before: Manifest | None, tars: str
) -> Manifest:
    counts = {
        name: sum((shard.labels[way].counts for shard in shards), Counter[int]()) for name, shards in splits.items()
    }
    names = _names(max(labels.counts, default=-1) + 1, before.label_names if before else ())
    known = before.named_labels if before else {}
    return Manifest(
        {
            name: Split(
                Shards.of(shard.entry for shard in shards), tuple(counts[name][label] for label in range(len(names)))
            )
            for name, shards in splits.items()
        },
        names,
        {name: _names(count, known.get(name, ())) for name, count in sorted(labels.num_classes.items())},
        adopted=True,
        records=labels.records,
        tars=tars,
        values=dict(sorted(labels.num_values.items())),
    )


def _names(count: int, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of classes, where they are known from before; numbers for those that have none."""
    numbers = tuple(str(label) for label in range(max(count, len(known))))
    return numbers[:count] if known == numbers[: len(known)] else known + numbers[len(known) :]
