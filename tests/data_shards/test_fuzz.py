"""12 000 mutated tars, indexes and members: each is taken whole or refused by name, never half, never a crash."""

import io
import random
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.format.tar_index import TarIndex
from data_shards.format.tar_walk import BLOCK
from data_shards.modalities.kinds.catalogue import held_by

WriteTar = Callable[..., Path]
LONGEST_SECONDS = 20.0
"""Of one input, on a machine that has other things to do; most take a millisecond."""


def mutations(data: bytes, rng: random.Random, count: int) -> Iterator[bytes]:
    """Yield copies with bits flipped, runs overwritten, pieces cut, doubled and exchanged, often at block borders."""
    for _ in range(count):
        mutated = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(mutated) + 1)
            if rng.random() < 0.5:
                place = place // BLOCK * BLOCK
            length = rng.choice((1, 8, 100, BLOCK, 2 * BLOCK))
            match rng.randrange(6):
                case 0:
                    mutated[place : place + 1] = bytes([rng.randrange(256)])
                case 1:
                    mutated[place : place + length] = rng.randbytes(length)
                case 2:
                    del mutated[place : place + length]
                case 3:
                    mutated[place:place] = mutated[place : place + length]
                case 4:
                    del mutated[place:]
                case 5:
                    other = rng.randrange(len(mutated) + 1) // BLOCK * BLOCK
                    mutated[place : place + length] = mutated[other : other + length]
        yield bytes(mutated)


def timed(work: Callable[[], object]) -> object:
    """Return what the work gives, or the ValueError that it raises; another error, or a long wait, is a failure."""
    start = time.process_time()
    try:
        return work()
    except ValueError as error:
        return error
    finally:
        assert time.process_time() - start < LONGEST_SECONDS


@pytest.fixture
def good_tar(tmp_path: Path, write_tar: WriteTar) -> bytes:
    members = [(f"{n:03d}.{kind}", bytes([n]) * (n * 97 % 1500)) for n in range(6) for kind in ("jpg", "txt", "cls")]
    write_tar(tmp_path / "good.tar", members)
    with tarfile.open(tmp_path / "good.tar", "a", format=tarfile.PAX_FORMAT) as tar:
        header = tarfile.TarInfo("é" * 80 + "/006.txt")
        header.size = 10
        tar.addfile(header, io.BytesIO(bytes(10)))
    return (tmp_path / "good.tar").read_bytes().rstrip(b"\0") + bytes(2048)


def test_4_000_mutated_tars_give_whole_samples_or_an_error_that_names_them(tmp_path: Path, good_tar: bytes) -> None:
    path, num_taken = tmp_path / "mutated.tar", 0
    path.write_bytes(good_tar)
    assert TarIndex.from_tar(path).num_samples == 7
    for mutated in mutations(good_tar, random.Random(0), 4_000):
        path.write_bytes(mutated)
        index = timed(lambda: TarIndex.from_tar(path))
        if isinstance(index, ValueError):
            assert str(path) in str(index)
            assert "\n" not in str(index)
        else:
            assert isinstance(index, TarIndex)
            check_against_tarfile(index, path)
            num_taken += 1
    assert 100 < num_taken < 3_900  # the mutations neither all break the tar nor all leave it alone


def check_against_tarfile(index: TarIndex, path: Path) -> None:
    """Every member that tarfile finds is in the index with the same bytes, and no sample is cut short."""
    content = path.read_bytes()
    found = {
        f"{key}.{extension}": content[offset : offset + length]
        for sample, key in enumerate(index.keys)
        for extension, (offset, length) in index.members(sample).items()
    }
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isfile() and "." in Path(name).name.lstrip("."):
                stem, _, extension = Path(name).name.partition(".")
                key = f"{name[: -len(stem + extension) - 1]}{stem}.{extension.lower()}"
                file = tar.extractfile(member)
                if key in found and file is not None:
                    assert found[key] == file.read()


def test_2_000_mutated_indexes_are_refused_or_lie_within_their_tar(tmp_path: Path, good_tar: bytes) -> None:
    path = tmp_path / "good.tar"
    path.write_bytes(good_tar)
    data = TarIndex.from_tar(path).to_bytes()
    for mutated in mutations(data, random.Random(1), 2_000):
        index = timed(lambda mutated=mutated: TarIndex.from_bytes(mutated))  # type: ignore[misc] # bound by value
        if isinstance(index, TarIndex):
            assert all(end <= index.tar_bytes for _, end in index.spans.tolist())
            assert len(index.keys) == index.num_samples
        else:
            assert "is not an index" in str(index)


def seeds() -> dict[str, bytes]:
    """Return a small good member of every kind that can be made here."""
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))
    made = {}
    for extension, form in {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP"}.items():
        stream = io.BytesIO()
        pixels.save(stream, form)
        made[extension] = stream.getvalue()
    points = np.random.default_rng(0).random((40, 3), np.float32)
    stream, archive = io.BytesIO(), io.BytesIO()
    np.save(stream, points)
    np.savez(archive, points=points)
    rate = (8000).to_bytes(4, "little")
    body = b"WAVEfmt " + (16).to_bytes(4, "little") + b"\1\0\1\0" + rate + (16000).to_bytes(4, "little") + b"\2\0\x10\0"
    body += b"data" + (400).to_bytes(4, "little") + bytes(range(200)) * 2
    ply = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    return made | {
        "npy": stream.getvalue(),
        "npz": archive.getvalue(),
        "wav": b"RIFF" + len(body).to_bytes(4, "little") + body,
        "off": b"OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n",
        "ply": (ply + "0 0 0\n1 0 0\n0 1 0\n").encode(),
        "txt": "naïve café".encode() * 20,
    }


@pytest.mark.parametrize("extension", sorted(seeds()))
def test_600_mutated_members_are_decoded_or_refused(extension: str) -> None:
    held, good = held_by(extension), seeds()[extension]
    assert held is not None
    held[0].decoded_shape("", good)
    for mutated in mutations(good, random.Random(extension), 600):
        found = timed(lambda mutated=mutated: held[0].decoded_shape("", mutated))  # type: ignore[misc] # bound by value
        assert isinstance(found, tuple | ValueError)
