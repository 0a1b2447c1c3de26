"""A table of answers holds every row and every column of its parts, whatever is in them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from launch.answers import tables

ROWS: list[list[dict[str, Any]]] = [
    [{"key": "a\u2028b.png", "label": "cat\x85dog"}, {"key": 'c\x1cd,"e".png', "label": "x\ny", "shard": "0.tar"}],
    [{"key": "f", "label": "g", "score": 0.5}],
]


@pytest.mark.parametrize("suffix", tables.FORMATS)
def test_a_text_with_the_ends_of_lines_of_other_alphabets_is_one_cell(tmp_path: Path, suffix: str) -> None:
    parts = [tmp_path / str(number) for number in range(len(ROWS))]
    for part, rows in zip(parts, ROWS, strict=True):
        part.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
    out = tmp_path / f"answers{suffix}"
    tables.join(parts, out, suffix)
    assert read(out) == [row for rows in ROWS for row in rows]
    assert tables.num_rows(parts) == 3


def read(out: Path) -> list[dict[str, Any]]:
    """Return the rows without the cells that are empty."""
    if out.suffix == ".parquet":
        from pyarrow import parquet

        return [{k: v for k, v in row.items() if v is not None} for row in parquet.read_table(out).to_pylist()]
    if out.suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        return [row | ({"score": float(row["score"])} if "score" in row else {}) for row in rows]
    return [json.loads(line) for line in out.read_bytes().splitlines()]
