"""The shards of a split as columns: 100 000 entries as objects take 1.3 s to read and 66 MB of memory.

    names         train/000000.tar    train/000001.tar    ...
    num_samples   1000                1000                      also num_bytes, int64
    sha256        9f3a...             11c0...                   one text, 65 letters a shard; also index_sha256
    kinds         cls/jpg: 990        cls/jpg: 1000             samples by the suffixes of their members
                  jpg: 10             jpg: 0

An entry is put together only where somebody asks for it.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from data_shards.files.quoting import cut
from data_shards.format.members import fitting

_HASH_DIGITS = 64
# All hashes of a column are one text: that of shard i begins at 65 i. A text for each would take twice the memory.
_WORD = _HASH_DIGITS + 1
_HASHES = re.compile(rf"([0-9a-f]{{{_HASH_DIGITS}}} )*([0-9a-f]{{{_HASH_DIGITS}}})?")


@dataclass(frozen=True)
class ShardEntry:
    """One tar file of a split."""

    name: str
    """Path relative to the folder of the manifest, such as "train/000000.tar"."""
    num_samples: int
    """Samples in the tar; every file of a sample shares its key."""
    num_bytes: int
    """Size of the tar file."""
    sha256: str
    """SHA-256 of the tar file, hexadecimal."""
    index_sha256: str
    """SHA-256 of the index file, hexadecimal."""
    kinds: dict[str, int]
    """Samples of each kind: the suffixes of a sample's members, sorted, with / between them."""


class Shards(Sequence[ShardEntry]):
    """Entries, put together when they are asked for."""

    def __init__(
        self,
        names: tuple[str, ...],
        num_samples: np.ndarray,
        num_bytes: np.ndarray,
        sha256: str,
        index_sha256: str,
        kinds: Mapping[str, np.ndarray],
        num_in_tars: np.ndarray | None = None,
    ) -> None:
        """Numbers are int64 (shards,), hashes are words with a space between them.

        `num_in_tars` are the samples of each tar, where some of them are left out.
        """
        self.names, self.num_samples, self.num_bytes = names, num_samples, num_bytes
        self._num_in_tars = num_samples if num_in_tars is None else num_in_tars
        self._sha256, self._index_sha256, self._kinds = sha256, index_sha256, kinds

    @staticmethod
    def of(entries: Iterable[ShardEntry]) -> "Shards":
        """Return the shards of these entries."""
        listed = list(entries)
        # The text of all hashes is cut by place: one of another length would move all behind it.
        assert all(len(digest) == _HASH_DIGITS for entry in listed for digest in (entry.sha256, entry.index_sha256))
        kinds = sorted({kind for entry in listed for kind in entry.kinds})
        return Shards(
            tuple(entry.name for entry in listed),
            np.array([entry.num_samples for entry in listed], np.int64),
            np.array([entry.num_bytes for entry in listed], np.int64),
            " ".join(entry.sha256 for entry in listed),
            " ".join(entry.index_sha256 for entry in listed),
            {kind: np.array([entry.kinds.get(kind, 0) for entry in listed], np.int64) for kind in kinds},
        )

    @property
    def suffixes(self) -> Counter[str]:
        """Samples of all shards that have a member of each suffix."""
        found: Counter[str] = Counter()
        for kind, counts in self._kinds.items():
            found.update(dict.fromkeys(kind.split("/"), int(counts.sum())))
        return found

    def num_samples_with(self, *members: Sequence[str]) -> np.ndarray:
        """Return how many samples of each shard have a member for each of these lists of patterns, int64 (shards,)."""
        # By kinds: counts by suffix could not say how many samples have two members together, as data.require asks.
        counts = np.zeros(len(self), np.int64)
        for kind, of_kind in self._kinds.items():
            if all(any(fitting(patterns, kind.split("/"))) for patterns in members):
                counts += of_kind
        return counts

    def with_samples(self, num_samples: np.ndarray) -> "Shards":
        """Return the shards with only so many of their samples, int64 (shards,); a shard without any is left out."""
        kept = np.flatnonzero(num_samples)
        return Shards(
            tuple(self.names[number] for number in kept.tolist()),
            num_samples[kept],
            self.num_bytes[kept],
            " ".join(np.array(self._sha256.split())[kept]),
            " ".join(np.array(self._index_sha256.split())[kept]),
            # An upper bound: which kinds the dropped samples are of, only the indexes say.
            {kind: np.minimum(counts, num_samples)[kept] for kind, counts in self._kinds.items()},
            self._num_in_tars[kept],
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 over the hash, sample count, size and name of every tar."""
        # Never change a byte of these rows: the order of every run and the identity of every checkpoint hang on them.
        digest = hashlib.sha256()
        # In pieces: the rows of 100 000 shards all at once take 20 MB.
        for begin in range(0, len(self), 1000):
            cut = slice(begin, begin + 1000)
            hashes = self._sha256[begin * _WORD : (begin + 1000) * _WORD].split()
            numbers = self.num_samples[cut].tolist(), self.num_bytes[cut].tolist()
            rows = zip(hashes, *numbers, self.names[cut], strict=True)
            digest.update("".join([f"{sha} {samples} {size} {name}\n" for sha, samples, size, name in rows]).encode())
        return digest.hexdigest()

    def to_columns(self) -> dict[str, object]:
        """Return what from_columns() takes, as JSON has it."""
        return {
            "names": self.names,
            "num_samples": _words(self.num_samples),
            "num_bytes": _words(self.num_bytes),
            "kinds": {kind: _words(counts) for kind, counts in self._kinds.items()},
            "sha256": self._sha256,
            "index_sha256": self._index_sha256,
        }

    @staticmethod
    def from_columns(columns: Mapping[str, Any]) -> "Shards":
        """Return the shards of to_columns(); ValueError where the columns differ in length or hold something else."""
        names = tuple(columns["names"])
        for name in names:
            _check_name(name)
        hashes = columns["sha256"], columns["index_sha256"]
        for digests in hashes:
            if len(digests) != max(0, len(names) * _WORD - 1):
                raise ValueError(f"{len(names)} shards, but hashes of {len(digests) / _WORD:.1f}")
            # A hash is a name in the cache of what is fetched: anything else could be a path that leads out of it.
            if not isinstance(digests, str) or not _HASHES.fullmatch(digests):
                raise ValueError(f"hashes that are not {_HASH_DIGITS} hexadecimal digits each: {cut(repr(digests))}")
        return Shards(
            names,
            _numbers(columns["num_samples"], len(names)),
            _numbers(columns["num_bytes"], len(names)),
            *hashes,
            {kind: _numbers(counts, len(names)) for kind, counts in columns["kinds"].items()},
        )

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, place: slice) -> list[ShardEntry]: ...
    def __getitem__(self, place: int | slice) -> ShardEntry | list[ShardEntry]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        # A range does what a list would: places from the end, and IndexError beyond it.
        number = range(len(self))[place]
        digits = slice(number * _WORD, number * _WORD + _HASH_DIGITS)
        return ShardEntry(
            self.names[number],
            # Of the whole tar: an index is checked against all samples, also where data.require drops some of them.
            int(self._num_in_tars[number]),
            int(self.num_bytes[number]),
            self._sha256[digits],
            self._index_sha256[digits],
            {kind: int(counts[number]) for kind, counts in self._kinds.items() if counts[number]},
        )

    def __iter__(self) -> Iterator[ShardEntry]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shards) and self.to_columns() == other.to_columns()

    def __hash__(self) -> int:
        return hash(self._sha256)


def kind_of(suffixes: Iterable[str]) -> str:
    """Return the kind of a sample with members of these suffixes."""
    return "/".join(sorted(suffixes))


def _check_name(name: object) -> None:
    """Raise ValueError unless a shard's name lies in the manifest's folder; links are for the folder to refuse."""
    if not isinstance(name, str) or not {"", ".", ".."}.isdisjoint(name.split("/")) or "\0" in name:
        raise ValueError(f"shard {cut(repr(name))}: expected the path of a tar within the folder, such as train/0.tar")


def _words(numbers: np.ndarray) -> str:
    # A parser needs forty bytes for each number of a list, and for a word its letters.
    return " ".join(map(str, numbers.tolist()))


def _numbers(words: str, count: int) -> np.ndarray:
    try:
        numbers = np.fromiter(map(int, words.split(" ") if words else ()), np.int64)
    except OverflowError as error:
        raise ValueError("a number of more than 64 bits") from error
    if len(numbers) != count:
        raise ValueError(f"{count} shards, but numbers of {len(numbers)}")
    if count and numbers.min() < 0:
        raise ValueError(f"{numbers.min()} is below 0")
    # Python's integers, since numpy's would wrap around and pass the check.
    if sum(numbers.tolist()) >= 2**62:
        raise ValueError("its numbers add up to more than 62 bits")
    return numbers
