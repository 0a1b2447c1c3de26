"""The bytes of any sample of a split, checked against its checksum, read from its shard an extent at a time."""

import hashlib
import threading
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_shards import extents
from data_shards.buffers import BufferPool
from data_shards.extents import Extent, ExtentCache
from data_shards.manifest import ShardEntry, Split
from data_shards.tar_index import TarIndex, checksum

_NUM_TABLES = 256
"""Shards whose index is held; one of 1 000 samples takes 0.5 MB."""


class RawSample(NamedTuple):
    """The undecoded members of a sample."""

    key: str
    members: dict[str, memoryview]
    """Bytes by extension."""


class Reader:
    """Samples of a split by (shard, sample). Threads share one."""

    def __init__(self, folder: Path, split: Split, *, live_bytes: int) -> None:
        self.extents = ExtentCache(live_bytes)
        self._pool = BufferPool()
        self._folder = folder
        self._shards = split.shards
        self._tables: dict[int, _Table] = {}
        self._lock = threading.Lock()

    def sample(self, shard: int, sample: int) -> RawSample:
        """Return the bytes of a sample; ValueError names the shard and the key where they are not what was written."""
        table = self._tables.get(shard) or self._open(shard)
        number = bisect_right(table.cuts, sample) - 1
        extent = self.extents.held.get((shard, number)) or self._fetch(shard, table, number)
        if extent.crc != table.extent_crcs[number]:
            self._check(shard, table, sample, extent)
        content = extent.content
        members = table.members[table.starts[sample] : table.starts[sample + 1]]
        return RawSample(table.keys[sample], {extension: content[begin:end] for extension, begin, end in members})

    def path(self, shard: int) -> Path:
        """Return the path of a shard."""
        return self._folder / self._shards[shard].name

    def close(self) -> None:
        """Drop all that was read."""
        self.extents.clear()
        self._tables.clear()

    def _open(self, shard: int) -> "_Table":
        with self._lock:
            if shard not in self._tables:
                self._tables[shard] = _Table(read_index(self._folder, self._shards[shard]))
                if len(self._tables) > _NUM_TABLES:
                    del self._tables[next(iter(self._tables))]
            return self._tables[shard]

    def _fetch(self, shard: int, table: "_Table", number: int) -> Extent:
        def read() -> Extent:
            first, last = table.cuts[number], table.cuts[number + 1] - 1
            return extents.read(self.path(shard), table.spans[first][0], table.spans[last][1], self._pool)

        try:
            return self.extents.fetch((shard, number), read)
        except OSError as error:
            raise ValueError(f"{self.path(shard)}: cannot be read ({error.strerror}); see to the disk") from error

    def _check(self, shard: int, table: "_Table", sample: int, extent: Extent) -> None:
        """Raise ValueError where a sample of an extent that was changed is not what was written."""
        begin, end = table.spans[sample]
        if checksum(extent.content[begin - extent.begin : end - extent.begin]) != table.crcs[sample]:
            raise ValueError(
                f"{self.path(shard)}: {table.keys[sample]}: bytes {begin} to {end} are not what was written; "
                f"copy the shard again, then run `perceiver data verify {self._folder}`"
            )


class _Table:
    """An index unpacked into lists: a place in a list takes a tenth of the time of one in an array."""

    def __init__(self, index: TarIndex) -> None:
        self.keys = index.keys
        self.spans: list[list[int]] = index.spans.tolist()
        self.crcs: list[int] = index.crcs.tolist()
        self.cuts: list[int] = index.cuts.tolist()
        self.extent_crcs: list[int] = index.extent_crcs.tolist()
        self.starts: list[int] = index.starts.tolist()
        names = [index.extensions[number] for number in index.extension_ids.tolist()]
        # Counted from the first byte of the extent, as its content is.
        members_an_extent = np.diff(index.starts[index.cuts].astype(np.int64))
        begins = index.offsets.astype(np.int64) - np.repeat(index.spans[index.cuts[:-1], 0], members_an_extent)
        ends = begins + index.lengths.astype(np.int64)
        self.members: list[tuple[str, int, int]] = list(zip(names, begins.tolist(), ends.tolist(), strict=True))


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
