import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from data_shards.building.raw_sample import File, Literal, NamedFile, Row
from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.format.tar_index import TarIndex
from data_shards.loading.shard_loader import ShardLoader
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.sources import table

LINES = [
    {"image": "pictures/a.png", "text": "a cat", "label": "cat"},
    {"image": "pictures/b.png", "text": "note.txt", "label": "dog", "weight": 0.5, "split": "test"},
    {"text": "a dog", "label": "dog"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in "ab":
        file = io.BytesIO()
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(file, "PNG")
        (tmp_path / "pictures" / f"{name}.png").write_bytes(file.getvalue())
    (tmp_path / "note.txt").write_text("from a file")
    return tmp_path


def write(folder: Path, kind: str) -> Path:
    path = folder / f"table.{kind}"
    columns = ["image", "text", "label", "weight", "split"]
    match kind:
        case "csv":
            cells = [[str(line.get(column, "")) for column in columns] for line in LINES]
            path.write_text("\n".join(",".join(row) for row in [columns, *cells]) + "\n")
        case "jsonl":
            path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
        case "parquet":
            arrays = {column: [line.get(column) for line in LINES] for column in columns}
            parquet.write_table(pyarrow.table(arrays), path)
    return path


@pytest.mark.parametrize(("kind", "first_line"), [("csv", 2), ("jsonl", 1), ("parquet", 1)])
def test_every_kind_of_table_gives_the_same_rows(folder: Path, kind: str, first_line: int) -> None:
    found = table.read(write(folder, kind))
    rows, names = found.rows, found.label_names
    assert names == ["cat", "dog"]
    assert [row.line for row in rows] == [first_line, first_line + 1, first_line + 2]
    assert [row.label for row in rows] == [0, 1, 1]
    assert [row.weight for row in rows] == [1, 0.5, 1]
    assert [row.split for row in rows] == ["train", "test", "train"]
    assert rows[0].members == (File(str(folder / "pictures/a.png")), Literal(b"a cat", "txt"))
    assert rows[1].members[1].read() == b"from a file"


def test_a_table_becomes_shards(folder: Path, tmp_path: Path) -> None:
    built = table.build(write(folder, "csv"), tmp_path / "out")
    assert built.label_names == ("cat", "dog")
    assert built.split("train").shards.suffixes == {"png": 1, "txt": 2, "cls": 2}
    index = TarIndex.from_tar(tmp_path / "out" / "test" / "000000.tar")
    assert index.members(0).keys() == {"cls", "json", "png", "txt"}


def test_numbers_are_labels_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("text,label\na,2\nb,0\nc,\n")
    found = table.read(path)
    rows, names = found.rows, found.label_names
    assert [row.label for row in rows] == [2, 0, None]
    assert names == ["0", "1", "2"]


def test_further_labels_have_columns_and_classes_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("text,label,label.tongue,label.year\na,cat,latin,1\nb,dog,,0\nc,,greek,\n")
    found = table.read(path)
    assert [row.named_labels for row in found.rows] == [{"tongue": 1, "year": 1}, {"year": 0}, {"tongue": 0}]
    assert found.named_labels == {"tongue": ["greek", "latin"], "year": ["0", "1"]}
    built = table.build(path, tmp_path / "out")
    assert built == manifest.read(tmp_path / "out")
    assert built.named_labels == {"tongue": ("greek", "latin"), "year": ("0", "1")}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("text,label\na,-1\n", "line 2: label -1 is out of range"),
        ("text,colour\na,red\n", "unknown columns colour"),
        ("text,label.\na,red\n", "unknown columns label."),
        ("text,label.year\na,-1\n", "line 2: label.year -1 is out of range"),
        ("text,label\na\n", "line 2: expected 2 cells"),
        ("text,label\na,b,c\n", "line 2: expected 2 cells"),
        ("image,label\n,1\n", "line 2: has none of"),
        ("image\nsound.wav\n", "line 2: 'sound.wav' is not a kind of image"),
        ("text,weight\na,heavy\n", "line 2: weight 'heavy'"),
        ("text,weight\na,nan\n", "line 2: weight 'nan'"),
        ("text,split\na,../up\n", "line 2: split '../up'"),
        ('text\n"open\n', "line"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_line(tmp_path: Path, lines: str, sentence: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(lines)
    with pytest.raises(ValueError, match=sentence):
        table.read(path)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        table.read(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="a table is one of"):
        table.read(tmp_path / "table.xls")
    for kind, sentence in [("jsonl", "line 1: not JSON"), ("parquet", "not a Parquet table")]:
        path = tmp_path / f"table.{kind}"
        path.write_bytes(b"{")
        with pytest.raises(ValueError, match=sentence):
            table.read(path)
    path = tmp_path / "table.csv"
    path.write_bytes(b"text\n\xff\xfe\n")
    with pytest.raises(ValueError, match="decode"):
        table.read(path)


def test_a_missing_file_is_reported_with_its_line(folder: Path, tmp_path: Path) -> None:
    (folder / "pictures" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"line 3: .*b.png: No such file"):
        table.build(write(folder, "csv"), tmp_path / "out")


@pytest.mark.parametrize("length", [100, 101])
def test_a_splits_name_is_one_that_a_folder_can_have(tmp_path: Path, length: int) -> None:
    (tmp_path / "table.csv").write_text(f"text,split\na,{'s' * length}\n")
    if length == 100:
        assert table.read(tmp_path / "table.csv").rows[0].split == "s" * 100
    else:
        with pytest.raises(ValueError, match=r"line 2: split 's.*is not a name of letters and digits"):
            table.read(tmp_path / "table.csv")


def test_rows_without_a_label_and_rows_with_several_are_told(tmp_path: Path) -> None:
    lines = [{"text": "a", "label": [0, 1]}, {"text": "b"}, {"text": "c", "label": 1, "label.kind": "x"}]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told: list[str] = []
    table.read(tmp_path / "table.jsonl", told.append)
    assert told == [
        "label: 1 of 3 rows have none",
        "label: rows have several; a run reads them with data.multi_label=true",
        "label.kind: 2 of 3 rows have none",
    ]


def test_two_cameras_and_a_caption_of_a_row_are_read_as_inputs_by_name(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2, 3), 200, np.uint8)).save(folder / "pictures" / "b.png")
    row = {"member.left": "pictures/a.png", "member.Right": "pictures/b.png", "field.caption": "two views", "label": 0}
    (folder / "views.jsonl").write_text(json.dumps(row) + "\n")
    table.build(folder / "views.jsonl", tmp_path / "out")
    inputs: dict[str, Any] = {
        "one": ImageConfig(height=4, width=4, members="left.png"),
        "other": ImageConfig(height=4, width=4, members="right.png"),
        "words": TextConfig(num_bytes=9, members="json.caption"),
    }
    config = DataConfig(shards=str(tmp_path / "out"), inputs=inputs, lanes=1)
    with ShardLoader(config, global_batch=1) as loader:
        batch = next(iter(loader))
    assert batch.lengths["words"].tolist() == [9]
    # Bytes are ids after six that have a meaning of their own.
    assert bytes((batch.arrays["words"][0] - 6).tolist()) == b"two views"
    assert int(batch.arrays["one"].max()) == 0
    assert int(batch.arrays["other"].min()) == 200


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"member.a b": "x.png"}, "unknown columns"),
        ({"field.labels": "x"}, "unknown columns"),
        ({"field.caption": 3}, "line 1: field.caption expected a text, got int 3"),
        ({"member.left": 3}, "line 1: member.left expected the path of a file, got int 3"),
        ({"member.left": "x.docx"}, "'x.docx' is not a kind of file that is read"),
        ({"member.first": "x.png", "first": "x.png", "second": "x.png", "flow": "x.flo"}, "make the member first.png"),
    ],
)
def test_named_members_and_fields_that_cannot_be_are_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    (tmp_path / "table.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        table.read(tmp_path / "table.jsonl")


def test_every_column_of_a_row_becomes_what_it_says(tmp_path: Path) -> None:
    every = {
        "image": "a/i.PNG",
        "audio": "s.wav",
        "first": "1.png",
        "second": "2.png",
        "flow": "f.PNG",
        "member.Left": "l.jpg",
        "field.caption": "two views",
        "label": "b",
        "label.kind": "k",
        "value.size": [1, 2.5],
        "value.gap": None,
        "weight": 0,
        "split": " Testing ",
    }
    lines = [every, {"text": "t", "label": ["b", "a"], "weight": 1e12, "split": "mine"}]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = table.read(tmp_path / "table.jsonl")
    members = (
        File(f"{tmp_path}/a/i.PNG"),
        File(f"{tmp_path}/s.wav"),
        NamedFile(f"{tmp_path}/l.jpg", "left"),
        NamedFile(f"{tmp_path}/1.png", "first"),
        NamedFile(f"{tmp_path}/2.png", "second"),
        NamedFile(f"{tmp_path}/f.PNG", "motion"),
    )
    assert found.rows == [
        Row(1, members, None, (1,), {"kind": 0}, {"caption": "two views"}, {"size": (1.0, 2.5)}, 0.0, "test"),
        Row(2, (Literal(b"t", "txt"),), None, (1, 0), weight=1e12, split="mine"),
    ]
    assert found.label_names == ["a", "b"]
    assert found.named_labels == {"kind": ["k"]}
    assert [content.extension for content in members] == [
        "png", "wav", "left.jpg", "first.png", "second.png", "motion.png",
    ]  # fmt: skip


@pytest.mark.parametrize("weight", [-1e-9, 1.1e12, "heavy", [1], 10**400])
def test_a_weight_is_a_number_from_0_to_a_million_millions(tmp_path: Path, weight: object) -> None:
    (tmp_path / "table.jsonl").write_text(json.dumps({"text": "a", "weight": weight}) + "\n")
    with pytest.raises(ValueError, match=r"line 1: weight .* is not a number from 0 to 1e\+12"):
        table.read(tmp_path / "table.jsonl")


@pytest.mark.parametrize(("num_letters", "is_path"), [(4096, True), (4097, False)])
def test_a_text_that_ends_as_a_path_does_is_one_unless_it_is_too_long(
    tmp_path: Path, num_letters: int, is_path: bool
) -> None:
    cell = "x" * (num_letters - 4) + ".txt"
    (tmp_path / "table.jsonl").write_text(json.dumps({"text": cell}) + "\n")
    ((content,),) = [row.members for row in table.read(tmp_path / "table.jsonl").rows]
    assert isinstance(content, Literal) != is_path
    (tmp_path / "table.jsonl").write_text(json.dumps({"image": "x" * (num_letters - 4) + ".png"}) + "\n")
    if is_path:
        assert table.read(tmp_path / "table.jsonl").rows[0].members == (File(f"{tmp_path}/{cell[:-4]}.png"),)
    else:
        with pytest.raises(ValueError, match=r"line 1: image .* is longer than any path"):
            table.read(tmp_path / "table.jsonl")


def test_texts_may_have_as_many_bytes_as_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.jsonl").write_text('{"text": "abc"}\n{"text": "de"}\n{"text": "note.txt"}\n')
    monkeypatch.setattr(table, "MAX_HELD_BYTES", 5)
    assert len(table.read(tmp_path / "table.jsonl").rows) == 3
    monkeypatch.setattr(table, "MAX_HELD_BYTES", 4)
    with pytest.raises(ValueError, match="line 2: the texts up to here have more than 4 bytes"):
        table.read(tmp_path / "table.jsonl")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({}, "has no rows"),
        ({"label": 1}, "has none of image, audio, video"),
        ({"image": "s3://me:pass@there/a.png"}, "is a URL; download it and write its path"),
        ({"image": 3}, "line 1: image expected the path of a file, got int 3"),
        ({"text": 3}, "line 1: text expected a text, got int 3"),
        ({"first": "a.png", "flow": "a.flo"}, "has first and flow; a pair of frames needs first, second and flow"),
        ({"first": "a.png", "second": "a.txt", "flow": "a.flo"}, "'a.txt' is not a kind of second file that is read"),
        ({"first": "a.png", "second": "b.png", "flow": "a.npy"}, "'a.npy' is not a kind of flow file that is read"),
        ({"text": "a", "split": "s" * 101}, "is not a name of letters and digits"),
        ({"text": "a", "value.size": "big"}, "line 1: value.size 'big' is no number"),
        ({"text": "a", "value.": 1}, "unknown columns value."),
        ({"text": "a", "label.a b": 1}, "unknown columns label.a b"),
        ({"text": "a", "labels": 1, "colour": 2}, "unknown columns colour, labels"),
    ],
)
def test_what_is_wrong_in_a_row_is_said(tmp_path: Path, row: dict[str, object], sentence: str) -> None:
    (tmp_path / "table.jsonl").write_text(json.dumps(row) + "\n" if row else "")
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        table.read(tmp_path / "table.jsonl")
    assert "me:pass" not in str(refused.value)


def test_what_rows_lack_and_how_classes_are_written_is_told(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"text": "a", "label": "Cat", "value.size": 1, "value.age": 3, "label.kind": "none"},
        {"text": "b", "label": "cat", "value.age": 4, "label.kind": "x"},
    ]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told: list[str] = []
    table.read(tmp_path / "table.jsonl", told.append)
    assert told == [
        "value.size: 1 of 2 rows have none",
        "label: the classes 'Cat' and 'cat' look alike; write them in one way if they are one class",
        "label.kind: 'none' is a class; where it means that there is no label, leave the cell empty",
    ]
