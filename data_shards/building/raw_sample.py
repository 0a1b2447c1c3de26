"""One sample on its way into a shard: the sources of its members' bytes, its label, its weight."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from data_shards.files.quoting import shown
from data_shards.files.regular_file import open_regular


class Content(Protocol):
    """The source of one member's bytes; small and picklable, since it travels to the process that reads."""

    @property
    def extension(self) -> str:
        """The member's extension in the shard: lower case, without a dot."""

    @property
    def origin(self) -> str:
        """Names the source in an error about bad bytes; usually a path."""

    @property
    def num_bytes(self) -> int:
        """Length of the bytes, for balance among the shards; 0 where it is not known before they are read."""

    def read(self) -> bytes | None:
        """Return the bytes, None where the sample turns out to lack them; OSError or ValueError for a fault."""


def size_on_disk(path: str) -> int:
    """Return the size of a file in bytes; 0 where it is missing."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):  # the latter of a path that no file can have
        return 0


# slots: there is one for each file of a data set, and some have millions.
@dataclass(frozen=True, slots=True)
class File:
    """A file on disk."""

    path: str

    @property
    def extension(self) -> str:
        """The suffix of the path."""
        return Path(self.path).suffix[1:].lower()

    @property
    def origin(self) -> str:
        """The path."""
        return self.path

    @property
    def num_bytes(self) -> int:
        """Its size; 0 where it is missing, which `read` reports."""
        return size_on_disk(self.path)

    def read(self) -> bytes:
        """Return the whole file."""
        # Not Path.read_bytes: a pipe with the name of a picture would keep the build waiting for ever.
        with open_regular(self.path) as file:
            return file.read()


@dataclass(frozen=True, slots=True)
class NamedFile(File):
    """A file on disk that has a name of its own among the members of its sample: one of two cameras, a first frame."""

    name: str
    """The name, such as left or first."""

    @property
    def extension(self) -> str:
        """Name and suffix, such as "first.png"."""
        return f"{self.name}.{Path(self.path).suffix[1:].lower()}"


@dataclass(frozen=True, slots=True)
class Zipped:
    """A file in a zip archive, which is never unpacked."""

    archive: str
    name: str
    num_bytes: int

    @property
    def extension(self) -> str:
        """The suffix of the name."""
        return Path(self.name).suffix[1:].lower()

    @property
    def origin(self) -> str:
        """Archive and name."""
        return f"{self.archive}/{self.name}"

    def read(self) -> bytes:
        """Return the unpacked file; its checksum is verified."""
        try:
            return _open_archive(self.archive).read(self.name)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"unreadable in the archive ({error})") from error


@lru_cache(maxsize=8)
def _open_archive(path: str) -> zipfile.ZipFile:
    # Kept open: a zip's directory is read at each opening, and thousands of rows name the same archive.
    return zipfile.ZipFile(path)


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that stand in the table itself, such as a sentence."""

    value: bytes
    extension: str

    @property
    def origin(self) -> str:
        """The first of the bytes, since they have no path."""
        return shown(self.value)

    @property
    def num_bytes(self) -> int:
        """How many bytes there are."""
        return len(self.value)

    def read(self) -> bytes:
        """Return the bytes."""
        return self.value


@dataclass(frozen=True, slots=True)
class Row:
    """One sample; at most one member a modality."""

    line: int
    """Its place in its table, for the report of faults; its key in the shards, so no two rows share it."""
    members: tuple[Content, ...]
    """The modalities that the sample has."""
    label: int | None = None
    """Index into the label names."""
    labels: tuple[int, ...] = field(default=())
    """The labels of a sample that has several, as in AudioSet."""
    named_labels: Mapping[str, int] = field(default_factory=dict)
    """Further labels by name, each an index into the classes of that name."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Texts of the record by name, which an input may read, such as a caption."""
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Numbers that are to be answered, by name; NaN for one of several that is not known."""
    weight: float = 1.0
    """The weight of the sample in the loss."""
    split: str = "train"
    """The split that it belongs to."""
