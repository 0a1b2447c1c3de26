"""Tiny folders in published layouts, built by the command, and their samples as they lie in the shards."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_shards.format import manifest
from data_shards.format.manifest import Manifest
from data_shards.format.tar_index import TarIndex
from launch.cli.main import app


class Built:
    """A shard folder that `perceiver data build` wrote, and what it printed."""

    def __init__(self, folder: Path, told: list[str]) -> None:
        self.folder, self.told = folder, "\n".join(told)
        self.manifest: Manifest = manifest.read(folder)

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each split."""
        return {name: split.num_samples for name, split in self.manifest.splits.items()}

    def samples(self, split: str = "train") -> list[dict[str, bytes]]:
        """Members of every sample by suffix, in the order of their keys."""
        found: dict[str, dict[str, bytes]] = {}
        for shard in self.manifest.split(split).shards:
            path = self.folder / shard.name
            index, data = TarIndex.read(path.with_suffix(".idx")), path.read_bytes()
            for number, key in enumerate(index.keys):
                places = index.members(number).items()
                found[key] = {suffix: data[offset : offset + length] for suffix, (offset, length) in places}
        return [found[key] for key in sorted(found)]

    def labels(self, split: str = "train") -> list[str]:
        """The class name of every sample."""
        return [self.manifest.label_names[int(sample["cls"])] for sample in self.samples(split)]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Built]:
    """Build shards of a layout, from the folder `raw` into `out`."""

    def run(name: str, *options: object, folder: Path | None = None, out: str = "out") -> Built:
        words = ["data", "build", name, folder or tmp_path / "raw", tmp_path / out, "--jobs", 1, "--json", *options]
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return Built(tmp_path / out, found["notes"])

    return run


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write a file below the folder `raw`."""

    def write(name: str, data: bytes = b"") -> Path:
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Return a picture of one colour as a file."""

    def encode(value: int, kind: str = "PNG", size: tuple[int, int] = (12, 8)) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", size, (value, value, value)).save(file, kind)
        return file.getvalue()

    return encode


@pytest.fixture
def deep_png() -> Callable[[np.ndarray], bytes]:
    """Return a PNG of 16 bits in three channels, as its standard has it."""

    def encode(values: np.ndarray) -> bytes:
        height, width, _ = values.shape
        lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
        chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

    return encode


@pytest.fixture
def flo() -> Callable[..., bytes]:
    """Return a motion of (right, down) everywhere as a .flo file."""

    def encode(right: float, down: float, size: tuple[int, int] = (12, 8)) -> bytes:
        width, height = size
        return (
            b"PIEH" + struct.pack("<ii", width, height) + np.tile(np.float32([right, down]), width * height).tobytes()
        )

    return encode
