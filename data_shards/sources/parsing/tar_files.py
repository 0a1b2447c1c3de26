"""Files in a tar, or in a tar of that tar, as members; nothing is unpacked to the disk."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_shards.files.regular_file import open_regular
from data_shards.format import tar_walk


@dataclass(frozen=True, slots=True)
class Tarred:
    """A file in a tar that is not compressed."""

    archive: str
    name: str
    """Its name in the tar; of a tar in the tar, that tar's name and its own."""
    offset: int
    num_bytes: int

    @property
    def extension(self) -> str:
        """The suffix of the name."""
        return PurePosixPath(self.name).suffix[1:].lower()

    @property
    def origin(self) -> str:
        """Tar and name."""
        return f"{self.archive}/{self.name}"

    def read(self) -> bytes:
        """Return the file."""
        with open_regular(self.archive) as file:
            # By its place: the archive may be larger than the memory, and what lies before is not read again.
            data = os.pread(file.fileno(), self.num_bytes, self.offset)
        if len(data) < self.num_bytes:
            raise ValueError("the tar ends within it; copy the tar again")
        return data


def files(tar: Path) -> Iterator[Tarred]:
    """Yield the files of a tar in their order, and in place of a tar in it that tar's files."""
    for entry in tar_walk.walk(tar):
        if entry.name.endswith(".tar"):
            # Its files lie in the outer tar as they are: nothing has to be unpacked to reach them.
            inner = tar_walk.walk(tar, entry)
            yield from (Tarred(str(tar), f"{entry.name}/{each.name}", each.offset, each.length) for each in inner)
        else:
            yield Tarred(str(tar), entry.name, entry.offset, entry.length)
