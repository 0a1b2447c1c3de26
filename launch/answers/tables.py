"""A table of answers: JSON lines, CSV or Parquet, by the name of the file. Parts are JSON lines."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

FORMATS = (".parquet", ".csv", ".jsonl")


def refuse_other(out: Path) -> None:
    """Raise ValueError where the name says no format, or its library is missing."""
    if out.suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    if out.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401 - asked for before the work
        except ImportError as error:
            raise ValueError(f"--out {out}: Parquet needs pyarrow; pip install pyarrow, or write .csv") from error


def join(parts: Sequence[Path], out: Path, suffix: str) -> None:
    """Write the rows of all parts as one table."""
    writers: dict[str, Callable[[Sequence[Path], Path], None]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".jsonl": _json_lines,
    }
    writers[suffix](parts, out)


def num_rows(parts: Sequence[Path]) -> int:
    """Return how many rows the parts have."""
    return sum(part.read_bytes().count(b"\n") for part in parts)


def _json_lines(parts: Sequence[Path], out: Path) -> None:
    with out.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())


def _csv(parts: Sequence[Path], out: Path) -> None:
    # Rows need not have the same columns: the target is known of some samples only.
    columns = list(dict.fromkeys(column for row in _rows(parts) for column in row))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        # A list is its JSON, which `perceiver data build table` reads as a list too.
        writer.writerows({name: _as_text(cell) for name, cell in row.items()} for row in _rows(parts))


def _as_text(cell: object) -> object:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell


def _parquet(parts: Sequence[Path], out: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    # A part in which a column is empty throughout does not say what it holds; the others do.
    schemas = [_columns(rows).schema for part in parts if (rows := list(_rows([part])))]
    schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
    with parquet.ParquetWriter(out, schema) as writer:
        for part in parts:
            writer.write_table(pyarrow.Table.from_pylist(list(_rows([part])), schema))


def _columns(rows: Sequence[dict[str, Any]]) -> Any:  # noqa: ANN401  # a table of pyarrow
    import pyarrow

    # Table.from_pylist would take the columns of the first row alone.
    names = dict.fromkeys(name for row in rows for name in row)
    return pyarrow.table({name: [row.get(name) for row in rows] for name in names})


def _rows(parts: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for part in parts:
        # By the ends of lines alone: str.splitlines() also splits at other characters, such as U+2028 in a text.
        yield from map(json.loads, part.read_bytes().splitlines())
