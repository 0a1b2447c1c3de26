"""A shard folder on this machine: its manifest, indexes and tars, each checked against the manifest."""

import hashlib
import os
import shlex
import stat
from pathlib import Path
from typing import BinaryIO, Protocol

from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry, Split
from data_shards.format.tar_index import MAGIC, TarIndex


class ShardFolder(Protocol):
    """A folder of shards; see LocalFolder and remote.RemoteFolder."""

    def manifest(self) -> Manifest:
        """Return the manifest; ValueError where there is none."""

    def check(self, split: Split) -> None:
        """Raise ValueError for the first shard that is not what the manifest says, as far as a glance shows it."""

    def index(self, entry: ShardEntry) -> TarIndex:
        """Return the index that the manifest names by its hash; ValueError where it cannot be had."""

    def open(self, entry: ShardEntry) -> BinaryIO:
        """Return the tar, opened unbuffered; it can be read until it is closed."""

    def name(self, entry: ShardEntry) -> str:
        """Return the name of a shard for messages."""


class LocalFolder:
    """A folder that `perceiver data build` or `perceiver data index` wrote."""

    def __init__(self, folder: Path, known: Manifest | None = None) -> None:
        """`known` is its manifest, where somebody has read it."""
        self._folder = folder
        self._tars: Path | None = Path(known.tars or folder) if known else None
        """The folder of the tars, once the manifest is read: this one, or another that was indexed from here."""
        self._resolved: dict[Path, str] = {}
        """The real paths of the folders."""

    def __str__(self) -> str:
        return str(self._folder)

    def manifest(self) -> Manifest:
        """Return the manifest; ValueError where there is none."""
        found = manifest.read(self._folder)
        self._tars = Path(found.tars or self._folder)
        return found

    @property
    def tars(self) -> Path:
        """The folder of the tars."""
        if self._tars is None:
            self.manifest()
        assert self._tars is not None
        return self._tars

    def check(self, split: Split) -> None:
        """Raise ValueError for the first shard that is missing, elsewhere, or of another size than is listed."""
        folder = str(self.tars)
        # Folders once each, not once a shard: only a link can lead out, and most folders hold a thousand shards.
        for parent in {name.rpartition("/")[0] for name in split.shards.names} - {""}:
            refuse_outside(self.tars / parent, self.tars)
        for name, listed_bytes in zip(split.shards.names, split.shards.num_bytes.tolist(), strict=True):
            # One call a shard, and no Path: with 100 000 of them each microsecond is a tenth of a second.
            path = f"{folder}/{name}"
            try:
                # lstat: where a link leads is checked before it is followed.
                status = os.lstat(path)
                if stat.S_ISLNK(status.st_mode):
                    refuse_outside(Path(path), self.tars)
                    status = Path(path).stat()
            except FileNotFoundError:
                remedy = "copy it here again, or build the folder again"
                raise ValueError(f"{path}: no such file, but {self._folder}/manifest.json lists it; {remedy}") from None
            if status.st_size != listed_bytes:
                raise ValueError(
                    f"{path}: has {status.st_size} bytes, the manifest says {listed_bytes}: it was cut short or "
                    f"replaced; copy it again, then run `perceiver data verify {shlex.quote(str(self._folder))}`"
                )

    def index(self, entry: ShardEntry) -> TarIndex:
        """Return the index next to the tar; if it is missing, one created from the tar."""
        path = (self._folder / entry.name).with_suffix(".idx")
        content = self._index_beside(path)
        if content is not None:
            remedy = f"delete it: it is created again from {entry.name}"
            if not content.startswith(MAGIC):
                tars = shlex.quote(str(self.tars))
                remedy = f"another program wrote it; run `perceiver data index {tars} --index-folder OUT`"
        else:
            content = TarIndex.from_tar(self.path(entry)).to_bytes()
            remedy = "the tar itself was changed: copy it again"
        return checked_index(content, entry, f"{path}: is not the index that the manifest names; {remedy}")

    def open(self, entry: ShardEntry) -> BinaryIO:
        """Return the tar, opened unbuffered."""
        return self._opened(self.path(entry), self.tars)

    def name(self, entry: ShardEntry) -> str:
        """Return the path of a shard."""
        return str(self.path(entry))

    def path(self, entry: ShardEntry) -> Path:
        """Return where a tar lies."""
        return self.tars / entry.name

    def _index_beside(self, path: Path) -> bytes | None:
        """Return the bytes of an index; None where there is no such file."""
        try:
            with self._opened(path, self._folder) as file:
                return file.read()
        # A folder of that name is none of ours, and not in the way: the index is then made from the tar in memory.
        except (FileNotFoundError, IsADirectoryError):
            return None

    def _opened(self, path: Path, folder: Path) -> BinaryIO:
        """Return a file of a folder, opened unbuffered; ValueError where its path leads out of the folder.

        The kernel knows where an open file lies: to resolve its path at each extent that is read would ask the disk for
        each part of it.
        """
        # Whole extents are read: a buffer would copy each of them once more.
        file = path.open("rb", buffering=0)
        if not self._lies_in(folder, file.fileno()):
            try:
                refuse_outside(path, folder)
            except ValueError:
                file.close()
                raise
        return file

    def _lies_in(self, folder: Path, descriptor: int) -> bool:
        """Return whether an open file lies in a folder; False where this system does not tell."""
        if folder not in self._resolved:
            # With a slash: /data/digits2 does not lie in /data/digits.
            self._resolved[folder] = f"{folder.resolve()}/"
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}").startswith(self._resolved[folder])  # noqa: PTH115  # a call an extent
        except OSError:
            return False


def checked_index(content: bytes, entry: ShardEntry, complaint: str) -> TarIndex:
    """Return the index with that content; ValueError with the complaint where it is not the one that was hashed."""
    if hashlib.sha256(content).hexdigest() != entry.index_sha256:
        raise ValueError(complaint)
    index = TarIndex.from_bytes(content)
    if index.num_samples != entry.num_samples:
        raise ValueError(f"{complaint} (it has {index.num_samples} samples, the manifest says {entry.num_samples})")
    return index


def refuse_outside(path: Path, folder: Path) -> None:
    """Raise ValueError where a path leads out of the folder, by its name or by a link."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path}: leads out of the folder; move the shard into it, or name the folder where it lies")
