"""Adopts tars that webdataset, img2dataset or GNU tar wrote: an index beside each, and a manifest."""

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_shards import manifest
from data_shards.folder import refuse_outside
from data_shards.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.members import LABEL, modality_of
from data_shards.tar_index import TarIndex

MAX_LABEL = 1_000_000
"""A larger label is a mistake: the manifest lists every class up to the largest."""
_NUM_THREADS = 4


@dataclass(frozen=True)
class _Adopted:
    """A tar as its manifest will list it."""

    entry: ShardEntry
    labels: Counter[int]


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
    labels = _labels(path, index)
    index.write(path.with_suffix(".idx"))
    return _Adopted(describe(path, folder, index), labels)


def _labels(path: Path, index: TarIndex) -> Counter[int]:
    labels: Counter[int] = Counter()
    with path.open("rb") as file:
        for sample, key in enumerate(index.keys):
            if (place := index.members(sample).get(LABEL)) is None:
                continue
            file.seek(place[0])
            text = file.read(place[1])
            if not text.strip().isdigit() or len(text) > 20 or int(text) > MAX_LABEL:
                shown = text[:40].decode(errors="replace")
                raise ValueError(f"{path}: {key}: label {shown!r} is not a number from 0 to {MAX_LABEL}; pack it anew")
            labels[int(text)] += 1
    return labels


def _manifest(splits: dict[str, list[_Adopted]]) -> Manifest:
    totals = {name: sum((shard.labels for shard in shards), Counter[int]()) for name, shards in splits.items()}
    num_classes = max((label + 1 for total in totals.values() for label in total), default=0)
    return Manifest(
        {
            name: Split(
                Shards.of(shard.entry for shard in shards), tuple(totals[name][label] for label in range(num_classes))
            )
            for name, shards in splits.items()
        },
        tuple(str(label) for label in range(num_classes)),
        adopted=True,
    )
