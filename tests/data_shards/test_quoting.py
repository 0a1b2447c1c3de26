"""What a message shows of a value is short, whatever the value is."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from data_shards.building.adoption import index
from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from data_shards.files.quoting import MAX_LISTED, MAX_SHOWN, counted, cut, listed, shown
from data_shards.modalities.decoding.formats.meshes import read_off
from data_shards.modalities.decoding.points import points
from data_shards.sources import audio_folder, table, text
from launch.supervise.submit import combinations

HUGE = "x" * 1_000_000
MOST = 1_000
"""Characters of a message about one value."""


def test_a_short_value_is_shown_as_it_is() -> None:
    assert [shown("cat"), shown(b"cat"), shown([0, 1]), shown({"a": None})] == [
        "'cat'",
        "b'cat'",
        "[0, 1]",
        "{'a': None}",
    ]
    assert shown("x" * MAX_SHOWN) == repr("x" * MAX_SHOWN)
    assert cut("cat") == "cat"
    assert listed(["a", "b"]) == "a, b"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (counted(0, "sample"), "0 samples"),
        (counted(1, "sample"), "1 sample"),
        (counted(2, "HDF5 file"), "2 HDF5 files"),
        (counted(1, "class"), "1 class"),
        (counted(3, "class"), "3 classes"),
        (counted(2, "micro-batch"), "2 micro-batches"),
        (counted(1, "file is", "files are"), "1 file is"),
        (counted(0, "file is", "files are"), "0 files are"),
        (counted(12_345, "parameter", form=","), "12,345 parameters"),
        (counted(1.001, "epoch", form=".3g"), "1 epoch"),
        (counted(1.5, "epoch", form=".3g"), "1.5 epochs"),
    ],
)
def test_a_count_has_its_noun_in_the_singular_where_there_is_one(told: str, expected: str) -> None:
    assert told == expected


@pytest.mark.parametrize(
    "value", [HUGE, HUGE.encode(), [HUGE] * 9, {"a": HUGE, HUGE: 1}, [[[[HUGE]]]], list(range(10**5))]
)
def test_a_huge_value_is_cut_and_its_size_told(value: object) -> None:
    assert len(shown(value)) < 2 * MAX_SHOWN
    assert shown(HUGE) == repr(HUGE[:MAX_SHOWN]) + "... (1000000 characters)"
    assert len(listed([HUGE] * 1_000)) < 2 * MAX_SHOWN * (MAX_LISTED + 1)
    assert len(cut(HUGE)) < 400


CELLS = {
    "an image column of bytes": {"image": {"bytes": HUGE.encode(), "path": "0.png"}},
    "bytes": {"image": HUGE.encode()},
    "a path": {"image": HUGE + ".png"},
    "a kind of file": {"image": HUGE},
    "a text that is a list": {"text": [HUGE, HUGE]},
    "a text that is not UTF-8": {"text": HUGE.encode() + b"\xff"},
    "a split": {"text": "a", "split": HUGE + "-"},
    "a weight": {"text": "a", "weight": HUGE},
    "a label": {"text": "a", "label": {"name": HUGE}},
    "a list of labels": {"text": "a", "label": [[HUGE]]},
    "a number": {"text": "a", "label": "9" * 1_000_000},
    "a column": {"text": "a", HUGE: "b"},
    "a pair": {"first": HUGE, "second": HUGE, "flow": HUGE},
}


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_an_error_about_a_parquet_table_is_short(tmp_path: Path, cells: dict[str, object]) -> None:
    parquet.write_table(pyarrow.table({column: [cell] for column, cell in cells.items()}), tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=r"table\.parquet: ") as caught:
        table.build(tmp_path / "table.parquet", tmp_path / "out")
    assert len(str(caught.value)) < MOST


@pytest.mark.parametrize(
    "line",
    [
        HUGE,
        json.dumps([HUGE]),
        json.dumps({"text": HUGE, "label": {"a": HUGE}}),
        '{"text": "a", "text": "' + HUGE + '"}',
        '{"text": "a", "' + HUGE + '": 1, "' + HUGE + '": 2}',
        json.dumps({"text": "\ud800" + HUGE}),
        "[" * 1_000_000,
    ],
)
def test_an_error_about_json_lines_is_short(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl: line 1: ") as caught:
        table.read(tmp_path / "a.jsonl")
    assert len(str(caught.value)) < MOST
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": {"a": HUGE}}) + "\n")
    with pytest.raises(ValueError, match=r'b\.jsonl: line 1: expected a string as "text"') as caught:
        text.build({"train": tmp_path / "b.jsonl"}, tmp_path / "out")
    assert len(str(caught.value)) < MOST


def test_errors_about_classes_files_and_members_are_short(tmp_path: Path, write_tar: Callable[..., Path]) -> None:
    (tmp_path / "list.csv").write_text(f"{HUGE[:100_000]},1\n")
    write_tar(tmp_path / "one" / "a.tar", [("a.txt", b"a")])
    with tarfile.open(tmp_path / "one" / "b.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for member in (f"{HUGE[:30_000]}.txt", "b.txt", f"{HUGE[:30_000]}.cls"):
            tar.addfile(tarfile.TarInfo(member), io.BytesIO())
    rows = [Row(0, (Literal(b"x", "txt"),), label=0)]
    faults: list[Callable[[], object]] = [
        lambda: audio_folder.build(tmp_path, tmp_path / "out", segments={"train": tmp_path / "list.csv"}),
        lambda: build_table(rows, tmp_path / "out", label_names=["a", *[HUGE] * 1_000]),
        lambda: index(tmp_path / "one"),
        lambda: read_off(b"OFF\n1 0 0\n0 0 " + HUGE.encode()),
        lambda: points(b"ply\n" + HUGE.encode() + b"\nend_header\n"),
        lambda: list(combinations([HUGE])),
    ]
    for fault in faults:
        with pytest.raises(ValueError, match=r".") as caught:
            fault()
        assert len(str(caught.value)) < MOST + 1_000


def test_a_name_of_blanks_or_none_is_quoted() -> None:
    assert listed(["label", " label", ""]) == "label, ' label', ''"
