"""The index of a shard: the position of each member in the tar, and a checksum per sample.

It is a function of the tar's bytes, lies next to it as NNNNNN.idx, and can be created at any time. The file: a magic,
six counts, then the arrays below and the names, little-endian, one after the other.

    members     0.cls 0.jpg | 1.cls 1.jpg | 2.jpg |  ...     offsets, lengths, extension_ids    one entry a member
    samples     |     0     |      1      |   2   |  ...     starts = 0 2 4 5 ...               and crcs, keys
    extents     |------------ 0 ----------|-- 1 ---  ...     cuts   = 0 2 ...                   and extent_crcs

Arrays and not records: an index of any size is parsed by a few calls of numpy. There are two checksums, because reading
takes that of a whole extent, and only where it is wrong asks which of its samples is bad.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import google_crc32c
import numpy as np

from data_shards.files import atomic
from data_shards.files.quoting import cut, shown
from data_shards.format import extents
from data_shards.format.buffers import BufferPool
from data_shards.format.members import key_and_extension
from data_shards.format.tar_walk import Entry, walk

MAGIC = b"perceiver-index1"
_NUM_COUNTS = 6
_MAX_EXTENSIONS = 1 << 16


@dataclass(frozen=True, eq=False)
class TarIndex:
    """S samples with M members, each sample's members next to each other, in E extents."""

    tar_bytes: int
    """Size of the tar."""
    offsets: np.ndarray
    """uint64 (M,): first byte of each member."""
    lengths: np.ndarray
    """uint64 (M,): bytes of each member."""
    extension_ids: np.ndarray
    """uint16 (M,): index into extensions."""
    starts: np.ndarray
    """uint32 (S + 1,): members starts[s] to starts[s + 1] belong to sample s."""
    crcs: np.ndarray
    """uint32 (S,): CRC-32C of the tar's bytes from the sample's first member to the end of its last, as in span()."""
    cuts: np.ndarray
    """uint32 (E + 1,): samples cuts[e] to cuts[e + 1] are extent e, the piece in which the tar is read."""
    extent_crcs: np.ndarray
    """uint32 (E,): CRC-32C from the first byte of an extent's first sample to the end of its last."""
    extensions: tuple[str, ...]
    keys: tuple[str, ...]

    @staticmethod
    def from_tar(path: Path, loose: Counter[str] | None = None) -> "TarIndex":
        """Read the index from the tar itself; ValueError names the tar, the sample and what is wrong.

        Members that belong to no sample are counted in `loose`, by their name with # for the digits in it.
        """
        entries: list[tuple[str, str, Entry]] = []
        for entry in walk(path):
            if (parts := key_and_extension(entry.name)) is not None:
                entries.append((*parts, entry))
            elif loose is not None:
                # Without its digits: ten thousand files of one kind are one line of the report.
                loose[re.sub(r"\d+", "#", Path(entry.name).name)] += 1
        if not entries:
            raise ValueError(f"{path}: holds no samples; leave it out or pack it again")
        keys, starts = _grouped(entries, path)
        # Sorted: a set of texts has another order in every process, and the same tar must give the same index.
        extensions = tuple(sorted({extension for _, extension, _ in entries}))
        # Extensions have numbers of 16 bits. So many happen where keys have a dot, and each name becomes a suffix of
        # its own.
        if len(extensions) > _MAX_EXTENSIONS:
            raise ValueError(
                f"{path}: has {len(extensions)} different suffixes, such as .{cut(extensions[0])}; a suffix begins at "
                f"the first dot of a name, and a tar has at most {_MAX_EXTENSIONS}: rename the members"
            )
        ids = {extension: number for number, extension in enumerate(extensions)}
        offsets = np.array([entry.offset for *_, entry in entries], np.uint64)
        lengths = np.array([entry.length for *_, entry in entries], np.uint64)
        places = spans(offsets, lengths, np.array(starts))
        cuts = extents.cuts(places)
        return TarIndex(
            tar_bytes=path.stat().st_size,
            offsets=offsets,
            lengths=lengths,
            extension_ids=np.array([ids[extension] for _, extension, _ in entries], np.uint16),
            starts=np.array(starts, np.uint32),
            crcs=_checksums(path, places),
            cuts=cuts.astype(np.uint32),
            extent_crcs=_checksums(path, np.stack([places[cuts[:-1], 0], places[cuts[1:] - 1, 1]], axis=1)),
            extensions=extensions,
            keys=keys,
        )

    @property
    def num_samples(self) -> int:
        """Samples in the tar."""
        return len(self.crcs)

    @cached_property
    def spans(self) -> np.ndarray:
        """int64 (S, 2): first byte and end of every sample."""
        return spans(self.offsets, self.lengths, self.starts)

    def span(self, sample: int) -> tuple[int, int]:
        """Return first byte and end of all members of a sample, the headers between them included."""
        begin, end = self.spans[sample].tolist()
        return begin, end

    def members(self, sample: int) -> dict[str, tuple[int, int]]:
        """Return offset and length in the tar of each member of a sample, by extension."""
        cut = slice(int(self.starts[sample]), int(self.starts[sample + 1]))
        names = [self.extensions[number] for number in self.extension_ids[cut].tolist()]
        places = zip(self.offsets[cut].tolist(), self.lengths[cut].tolist(), strict=True)
        return dict(zip(names, places, strict=True))

    def to_bytes(self) -> bytes:
        """Return the bytes of the index file."""
        # No name holds a line end: tar_walk refuses control characters.
        names = ["\n".join(self.extensions).encode(), "\n".join(self.keys).encode()]
        num_extents, name_bytes = len(self.extent_crcs), [len(name) for name in names]
        counts = [self.tar_bytes, self.num_samples, len(self.offsets), num_extents, *name_bytes]
        arrays = [self.offsets, self.lengths, self.extension_ids]
        arrays += [self.starts, self.crcs, self.cuts, self.extent_crcs]
        return b"".join([MAGIC, np.array(counts, "<u8").tobytes(), *(array.tobytes() for array in arrays), *names])

    @staticmethod
    def from_bytes(data: bytes) -> "TarIndex":
        """Return the index that to_bytes() wrote; ValueError where the bytes are not one."""
        try:
            index = _parsed(data)
        # OverflowError: a damaged count of 64 bits is more than numpy takes.
        except (ValueError, OverflowError) as error:
            raise ValueError(f"is not an index ({error}); delete it, it is created again from the tar") from error
        if not _is_sound(index):
            raise ValueError(
                "is not an index (its places lie outside the tar); delete it, it is created again from the tar"
            )
        return index

    def write(self, path: Path) -> None:
        """Write the index file."""
        atomic.write(path, self.to_bytes())

    @staticmethod
    def read(path: Path) -> "TarIndex":
        """Return the index in a file; ValueError names the file where it is not one."""
        try:
            return TarIndex.from_bytes(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def checksum(content: bytes | memoryview) -> int:
    """Return the CRC-32C of a sample's or an extent's bytes."""
    crc: int = google_crc32c.value(np.frombuffer(content, np.uint8))
    return crc


def spans(offsets: np.ndarray, lengths: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return first byte and end, int64 (S, 2), of samples whose members begin at numbers `starts`."""
    first, last = starts[:-1], starts[1:] - 1
    return np.stack([offsets[first], offsets[last] + lengths[last]], axis=1).astype(np.int64)


def _checksums(path: Path, places: np.ndarray) -> np.ndarray:
    pool = BufferPool()
    with path.open("rb", buffering=0) as file:
        return np.array([extents.read(file, begin, end, pool).crc for begin, end in places.tolist()], np.uint32)


def _grouped(entries: list[tuple[str, str, Entry]], path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Return the keys in order and the number of the first member of each, with the number of members at the end."""
    keys: dict[str, int] = {}
    seen: set[str] = set()
    current = None
    for number, (key, extension, _) in enumerate(entries):
        if key != current:
            # A sample is one span of bytes with one checksum. webdataset would make several broken samples of such a
            # key, without a word.
            if key in keys:
                raise ValueError(
                    f"{path}: the members of sample {shown(key)} are not next to each other; sort and pack it again"
                )
            keys[key] = number
            current, seen = key, set()
        if extension in seen:
            raise ValueError(
                f"{path}: sample {shown(key)} has two members .{cut(extension)}; leave one out and pack it again"
            )
        seen.add(extension)
    return tuple(keys), [*keys.values(), len(entries)]


def _parsed(data: bytes) -> TarIndex:
    if not data.startswith(MAGIC):
        raise ValueError("another format")
    place = len(MAGIC)
    counts = np.frombuffer(data, "<u8", _NUM_COUNTS, place)
    tar_bytes, num_samples, num_members, num_extents, *name_bytes = (int(count) for count in counts)
    place += counts.nbytes
    arrays: list[np.ndarray] = []
    numbers = [num_members] * 3 + [num_samples + 1, num_samples, num_extents + 1, num_extents]
    for kind, count in zip(["<u8", "<u8", "<u2", "<u4", "<u4", "<u4", "<u4"], numbers, strict=True):
        arrays.append(np.frombuffer(data, kind, count, place))
        place += arrays[-1].nbytes
    # frombuffer takes a file that is too long for whole; this one must end where its counts say.
    if len(data) != place + sum(name_bytes):
        raise ValueError(f"{len(data)} bytes, expected {place + sum(name_bytes)}")
    extensions = tuple(data[place : place + name_bytes[0]].decode().split("\n"))
    keys = tuple(data[place + name_bytes[0] :].decode().split("\n"))
    offsets, lengths, extension_ids, starts, crcs, cuts, extent_crcs = arrays
    return TarIndex(
        tar_bytes, offsets, lengths, extension_ids, starts, crcs, cuts, extent_crcs, extensions=extensions, keys=keys
    )


def _is_sound(index: TarIndex) -> bool:
    return bool(
        len(index.keys) == index.num_samples > 0
        and _divides(index.starts, len(index.offsets))
        and _divides(index.cuts, index.num_samples)
        and np.all(index.extension_ids < len(index.extensions))
        # In this order: the numbers are unsigned, and the difference in the next line would wrap below 0.
        and np.all(index.lengths <= index.tar_bytes)
        and np.all(index.offsets <= index.tar_bytes - index.lengths)
        and np.all(np.diff(index.offsets.astype(np.int64)) > 0)
    )


def _divides(bounds: np.ndarray, total: int) -> bool:
    """Return whether the bounds cut 0 to `total` into parts of which none is empty."""
    return bool(bounds[0] == 0 and bounds[-1] == total and np.all(np.diff(bounds.astype(np.int64)) > 0))
