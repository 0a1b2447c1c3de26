"""Small shard folders, written by tarfile, so that nothing here rests on the project's own builder."""

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_shards.building import adoption
from data_shards.format.manifest import Manifest

Members = Sequence[tuple[str, bytes]]


@pytest.fixture(scope="session")
def write_tar() -> Callable[[Path, Members], Path]:
    """Write a tar with these (name, content) members."""

    def write(path: Path, members: Members) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in members:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
        return path

    return write


@pytest.fixture(scope="session")
def text_shards(write_tar: Callable[[Path, Members], Path]) -> Callable[..., Manifest]:
    """Write shards of samples whose text is their key, labels 0 to 2, and adopt them."""

    def write(folder: Path, counts: Sequence[int], split: str = "train") -> Manifest:
        for shard, count in enumerate(counts):
            members: list[tuple[str, bytes]] = []
            for sample in range(count):
                key = f"{split[:2]}{shard:03d}_{sample:04d}"
                members += [(f"{key}.txt", key.encode()), (f"{key}.cls", str((shard + sample) % 3).encode())]
            write_tar(folder / split / f"{shard:06d}.tar", members)
        return adoption.index(folder)

    return write
