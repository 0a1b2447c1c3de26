"""Adopts tars that webdataset, img2dataset or GNU tar wrote: an index beside each, and a manifest."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards import manifest
from data_shards.folder import refuse_outside
from data_shards.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.members import LABEL, RECORD, modality_of
from data_shards.tar_index import TarIndex

MAX_LABEL = 1_000_000
"""A larger label is a mistake: the manifest lists every class up to the largest."""
_NUM_THREADS = 4


@dataclass(frozen=True)
class _Adopted:
    """A tar as its manifest will list it."""

    entry: ShardEntry
    labels: Counter[int]
    """Samples of each class."""
    named: Counter[str]
    """How many classes each further label has here."""


def index(folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Index the tars of a folder and write its manifest; ValueError names the first bad tar and counts the others.

    Tars in a folder of their own, such as train/, are the split of that name; tars in `folder` itself are "train".
    """
    tars = {path: "train" if path.parent == folder else path.parent.name for path in _tars(folder)}
    splits: dict[str, list[_Adopted]] = {split: [] for split in tars.values()}
    faults: list[ValueError] = []
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        coming = {path: threads.submit(_adopt, path, folder) for path in tars}
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
    found = _manifest(splits)
    manifest.write(found, folder)
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
        modalities=dict(Counter(kind for sample in range(index.num_samples) for kind in modalities(index, sample))),
    )


def modalities(index: TarIndex, sample: int) -> set[str]:
    """Return the modalities that a sample has."""
    return {kind for extension in index.members(sample) if (kind := modality_of(extension))}


def _tars(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name the folder that holds the tars")
    found = sorted(folder.glob("*.tar")) + sorted(folder.glob("*/*.tar"))
    if not found:
        raise ValueError(f"{folder}: no .tar file in it or in a folder of it; name the folder that holds the tars")
    for path in found:
        refuse_outside(path, folder)
    return found


def _adopt(path: Path, folder: Path) -> _Adopted:
    index = TarIndex.from_tar(path)
    labels: Counter[int] = Counter()
    named: Counter[str] = Counter()
    for key, name, given in _labels(path, index):
        text = str(given)
        if not text.isdecimal() or len(text) > 20 or int(text) > MAX_LABEL:
            which = f"label {name!r}" if name else "label"
            raise ValueError(
                f"{path}: {key}: {which} {text[:40]!r} is not a number from 0 to {MAX_LABEL}; pack it anew"
            )
        if name:
            named |= Counter({name: int(text) + 1})
        else:
            labels[int(text)] += 1
    index.write(path.with_suffix(".idx"))
    return _Adopted(describe(path, folder, index), labels, named)


def _labels(path: Path, index: TarIndex) -> Iterator[tuple[str, str, object]]:
    """Yield (key, name of a further label or "", label) for every label, as it stands there."""
    with path.open("rb") as file:
        for sample, key in enumerate(index.keys):
            members = index.members(sample)
            found = {}
            for member in (LABEL, RECORD):
                if member in members:
                    file.seek(members[member][0])
                    found[member] = file.read(members[member][1])
            if LABEL in found:
                yield key, "", found[LABEL].decode(errors="replace").strip()
            fields = _fields(found.get(RECORD, b""))
            several, named = fields.get("labels"), fields.get("named_labels")
            yield from ((key, "", label) for label in (several if isinstance(several, list) else ()))
            yield from ((key, name, label) for name, label in (named.items() if isinstance(named, dict) else ()))


def _fields(record: bytes) -> dict[str, Any]:
    """Return what a record says, if it speaks of labels; those of others are about other things."""
    if b'labels"' not in record:
        return {}
    try:
        fields = json.loads(record)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _manifest(splits: dict[str, list[_Adopted]]) -> Manifest:
    totals = {name: sum((shard.labels for shard in shards), Counter[int]()) for name, shards in splits.items()}
    num_classes = max((label + 1 for total in totals.values() for label in total), default=0)
    named: Counter[str] = Counter()
    for shard in (shard for shards in splits.values() for shard in shards):
        named |= shard.named
    return Manifest(
        {
            name: Split(
                Shards.of(shard.entry for shard in shards), tuple(totals[name][label] for label in range(num_classes))
            )
            for name, shards in splits.items()
        },
        _numbers(num_classes),
        {name: _numbers(count) for name, count in sorted(named.items())},
        adopted=True,
    )


def _numbers(count: int) -> tuple[str, ...]:
    """Return names for classes that have none."""
    return tuple(str(label) for label in range(count))
