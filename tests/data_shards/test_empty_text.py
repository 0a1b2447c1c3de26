"""A caption that is empty is no caption, and its picture is a sample all the same."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data_shards.building import adoption
from data_shards.building.inspection import verification
from data_shards.config import DataConfig
from data_shards.format.manifest import Manifest
from data_shards.loading.admission import BadSampleError
from data_shards.loading.reader import Reader
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.sources import table
from data_shards.storage.local_folder import LocalFolder

CONFIG = DataConfig(inputs={"image": ImageConfig(height=8, width=8), "text": TextConfig(num_bytes=4)})


@pytest.fixture(scope="module")
def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def lengths(folder: Path, shards: Manifest) -> dict[str, dict[str, int]]:
    """What training reads of each sample, by key; nothing of a bad one."""
    split = shards.split("train")
    intake, reader = (
        verification.intake(shards, "train", CONFIG),
        Reader(LocalFolder(folder), split, live_bytes=1 << 20),
    )
    found = {}
    for number in range(split.num_samples):
        try:
            key, sample = intake.sample(reader, 0, number)
            found[key] = dict(sample.lengths)
        except BadSampleError as error:
            found[error.key] = {}
    return found


def test_an_empty_text_in_a_tar_takes_nothing_with_it(
    tmp_path: Path, write_tar: Callable[..., Path], png: bytes
) -> None:
    members = [("a.png", png), ("a.txt", b""), ("b.png", png), ("b.txt", b"cat"), ("c.txt", b"")]
    write_tar(tmp_path / "train" / "0.tar", members)
    shards = adoption.index(tmp_path)
    assert lengths(tmp_path, shards) == {"a": {"image": 8}, "b": {"image": 8, "text": 3}, "c": {}}
    entry, intake = shards.split("train").shards[0], verification.intake(shards, "train", CONFIG)
    report = verification.verify_shard(LocalFolder(tmp_path), entry, intake)
    assert [(bad.key, bad.reason) for bad in report.bad] == [("c", "has none of image, text")]


@pytest.mark.parametrize("cell", ["empty.txt", "mark.txt", "empty.txt.gz", "", "  "])
def test_an_empty_text_of_a_table_takes_nothing_with_it(tmp_path: Path, png: bytes, cell: str) -> None:
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "empty.txt.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "table.csv").write_text(f"image,text\na.png,{cell}\n")
    built = table.build(tmp_path / "table.csv", tmp_path / "out")
    assert built.split("train").shards.suffixes == {"png": 1}
    if cell.strip():
        (tmp_path / "table.csv").write_text(f"text\n{cell}\n")
        with pytest.raises(ValueError, match=rf"line 2: {tmp_path}/{cell}: holds no modality"):
            table.build(tmp_path / "table.csv", tmp_path / "alone")
