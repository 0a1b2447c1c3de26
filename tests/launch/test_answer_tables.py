"""A table of answers holds every row and every column of its parts, whatever is in them."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from launch.answers import tables

ROWS: list[list[dict[str, Any]]] = [
    [{"key": "a\u2028b.png", "label": "cat\x85dog"}, {"key": 'c\x1cd,"e".png', "label": "x\ny", "shard": "0.tar"}],
    [{"key": "f", "label": "g", "score": 0.5}],
    # A column that is empty in all of a part, and a number that is whole there.
    [{"key": "h", "label": None, "score": 1}],
]


@pytest.mark.parametrize("suffix", tables.FORMATS)
def test_a_text_with_the_ends_of_lines_of_other_alphabets_is_one_cell(tmp_path: Path, suffix: str) -> None:
    parts = [tmp_path / str(number) for number in range(len(ROWS))]
    for part, rows in zip(parts, ROWS, strict=True):
        part.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
    out = tmp_path / f"answers{suffix}"
    tables.join(parts, out, suffix)
    filled = [{name: cell for name, cell in row.items() if cell is not None} for rows in ROWS for row in rows]
    assert read(out) == filled
    assert tables.num_rows(parts) == 4
    if suffix == ".csv":
        assert b"\r" not in out.read_bytes()


def test_a_list_of_words_stands_in_a_table_as_its_json(tmp_path: Path) -> None:
    (tmp_path / "0").write_text('{"key": "a", "label": ["h\u00e4", "b"]}\n', encoding="utf-8")
    tables.join([tmp_path / "0"], tmp_path / "out.csv", ".csv")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == 'key,label\na,"[""hä"", ""b""]"\n'


def test_parquet_without_its_library_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ValueError, match=r"--out a\.parquet: Parquet needs pyarrow; pip install pyarrow, or write \.csv"
    ):
        tables.refuse_other(Path("a.parquet"))
    tables.refuse_other(Path("a.csv"))


def read(out: Path) -> list[dict[str, Any]]:
    """Return the rows without the cells that are empty."""
    if out.suffix == ".parquet":
        from pyarrow import parquet

        return [{k: v for k, v in row.items() if v is not None} for row in parquet.read_table(out).to_pylist()]
    if out.suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        return [row | ({"score": float(row["score"])} if "score" in row else {}) for row in rows]
    rows = map(json.loads, out.read_bytes().splitlines())
    return [{k: v for k, v in row.items() if v is not None} for row in rows]
