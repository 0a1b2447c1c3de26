"""The bytes of any sample of a split, checked against its checksum, read from its shard an extent at a time."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards import extents
from data_shards.extents import Extent, ExtentCache
from data_shards.manifest import ShardEntry, Split
from data_shards.tar_index import TarIndex, checksum

_NUM_INDEXES = 256
"""Indexes held; one of a shard of 1 000 samples takes 0.1 MB."""


@dataclass(frozen=True)
class RawSample:
    """The undecoded members of a sample."""

    key: str
    members: dict[str, memoryview]
    """Bytes by extension."""


class Reader:
    """Samples of a split by (shard, sample). Threads share one."""

    def __init__(self, folder: Path, split: Split, *, live_bytes: int) -> None:
        self._folder = folder
        self._shards = split.shards
        self._extents = ExtentCache(live_bytes)
        self._indexes: OrderedDict[int, tuple[TarIndex, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def sample(self, shard: int, sample: int) -> RawSample:
        """Return the bytes of a sample; ValueError names the shard and the key where they are not what was written."""
        index, cuts = self._index(shard)
        number = int(np.searchsorted(cuts, sample, side="right")) - 1
        extent = self._extents.get((shard, number), lambda: self._read(shard, index, cuts[number : number + 2]))
        begin, end = index.span(sample)
        span = extent.content[begin - extent.begin : end - extent.begin].tobytes()
        if checksum(span) != index.crcs[sample]:
            raise ValueError(
                f"{self.path(shard)}: {index.keys[sample]}: bytes {begin} to {end} are not what was written; "
                f"copy the shard again, then run `perceiver data verify {self._folder}`"
            )
        view = memoryview(span)
        members = {
            extension: view[offset - begin : offset - begin + length]
            for extension, (offset, length) in index.members(sample).items()
        }
        return RawSample(index.keys[sample], members)

    def path(self, shard: int) -> Path:
        """Return the path of a shard."""
        return self._folder / self._shards[shard].name

    @property
    def num_extents_read(self) -> int:
        """Extents read so far."""
        return self._extents.num_read

    def _index(self, shard: int) -> tuple[TarIndex, np.ndarray]:
        with self._lock:
            if shard in self._indexes:
                self._indexes.move_to_end(shard)
                return self._indexes[shard]
        index = read_index(self._folder, self._shards[shard])
        with self._lock:
            self._indexes[shard] = index, extents.cuts(index.spans)
            if len(self._indexes) > _NUM_INDEXES:
                self._indexes.popitem(last=False)
            return self._indexes[shard]

    def _read(self, shard: int, index: TarIndex, samples: np.ndarray) -> Extent:
        begin, end = int(index.spans[samples[0], 0]), int(index.spans[samples[1] - 1, 1])
        content = np.empty(end - begin, np.uint8).data
        with self.path(shard).open("rb", buffering=0) as file:
            file.seek(begin)
            done = 0
            while done < len(content) and (count := file.readinto(content[done:])):
                done += count
        if done < len(content):
            raise ValueError(
                f"{self.path(shard)}: ends at byte {begin + done}, the index goes on to {end}; copy it again"
            )
        return Extent(begin, content)


def read_index(folder: Path, entry: ShardEntry) -> TarIndex:
    """Return the index of a shard: the file beside it, or where that is missing, made anew from the tar.

    Either way it is the one that the manifest names by its hash; ValueError says what to do where it is not.
    """
    path = (folder / entry.name).with_suffix(".idx")
    if path.is_file():
        content, remedy = path.read_bytes(), f"delete it: it is made anew from {entry.name}"
    else:
        content, remedy = TarIndex.from_tar(folder / entry.name).to_bytes(), "the tar itself was changed: copy it again"
    if hashlib.sha256(content).hexdigest() != entry.index_sha256:
        raise ValueError(f"{path}: is not the index that {folder / 'manifest.json'} was written with; {remedy}")
    return TarIndex.from_bytes(content)


def check_shards(folder: Path, split: Split) -> None:
    """Raise ValueError for the first shard that is missing, elsewhere, or of another size than the manifest says."""
    for entry in split.shards:
        path = folder / entry.name
        refuse_outside(path, folder)
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError:
            remedy = "copy it here again, or build the folder anew"
            raise ValueError(f"{path}: no such file, but {folder / 'manifest.json'} lists it; {remedy}") from None
        if num_bytes != entry.num_bytes:
            raise ValueError(
                f"{path}: has {num_bytes} bytes, the manifest says {entry.num_bytes}: it was cut short or replaced; "
                f"copy it again, then run `perceiver data verify {folder}`"
            )


def refuse_outside(path: Path, folder: Path) -> None:
    """Raise ValueError where a path leads out of the folder, by its name or by a link."""
    if (path.is_symlink() or ".." in path.parts) and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path}: leads out of the folder; move the shard into it, or name the folder where it lies")
