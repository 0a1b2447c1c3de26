import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data_shards import adopt, decode, show
from data_shards.build import build_table
from data_shards.records import Records
from data_shards.rows import Literal, Row
from data_shards.show import contact_sheet
from data_shards.sources.digits import NAMES, Drawn


def build(folder: Path, number: int) -> None:
    rows = [
        Row(line, tuple(Drawn(line, 0, extension) for extension in ("mp4", "npy", "png", "txt", "wav")), label=line)
        for line in range(number)
    ]
    build_table(
        [*rows, Row(99, (Literal(b"costs $3", "txt"),))], folder, label_names=NAMES[:number], samples_per_shard=3
    )


def test_a_sheet_shows_every_modality_of_samples_of_all_shards(tmp_path: Path) -> None:
    build(tmp_path, 4)
    assert contact_sheet(tmp_path, tmp_path / "new" / "sheet.png", num_samples=9) == 5
    sheet = decode.pixels((tmp_path / "new" / "sheet.png").read_bytes())
    # Five rows and six columns of cells; a cell with nothing in it is white.
    cells = [np.array_split(row, 6, axis=1) for row in np.array_split(sheet, 5, axis=0)]
    num_blank = sum(bool((cell == 255).all()) for row in cells for cell in row)
    assert num_blank == 0


def test_a_sheet_of_shards_that_are_gone_says_so(tmp_path: Path) -> None:
    build(tmp_path, 2)
    (tmp_path / "train" / "000000.tar").unlink()
    with pytest.raises(ValueError, match=r"000000.tar: cannot be read"):
        contact_sheet(tmp_path, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="has no split 'test'"):
        contact_sheet(tmp_path, tmp_path / "sheet.png", split="test")
    build(tmp_path / "again", 2)
    with pytest.raises(ValueError, match="cannot be written"):
        contact_sheet(tmp_path / "again", tmp_path / "again" / "manifest.json" / "sheet.png")


def test_labels_are_those_that_training_takes_and_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in (
            ("a.txt", b"x"),
            ("a.json", b'{"tags": [0, 2], "weight": "1.2 kg"}'),
            ("b.txt", b"x"),
            ("b.cls", b"cat"),
        ):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    shards = adopt.index(tmp_path, records=Records(labels="tags"))
    assert contact_sheet(tmp_path, tmp_path / "sheet.png") == 2
    good, bad = ({"json": b'{"tags": [0, 2]}'}, {"cls": b"cat"})
    assert list(show._labels(good, shards)) == ["0", "2"]
    assert list(show._labels(bad, shards)) == [".cls: label is not a number from 0 to 1000000: 'cat'"]
