"""The cells of a table, row by row: CSV, tab-separated values, JSON lines, Parquet, plain or compressed."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_shards.files.quoting import counted, shown
from data_shards.sources.parsing import plain_text
from data_shards.sources.parsing.labels import is_empty

Cells = tuple[int, dict[str, Any]]
"""Line in the table, and the cells by column; empty cells are absent."""
_ROWS_A_BATCH = 8
"""Rows of Parquet that are unpacked at a time: a file of 1 kB can hold any number of cells of 20 MB."""
_MOST_AT_ONCE = 16 << 20
"""Bytes of a batch above which its rows are taken one by one: each copy of a long cell costs its memory again."""
_BUFFER_BYTES = 1 << 20


def read(table: Path) -> Iterator[Cells]:
    """Yield line and cells of every row; ValueError says what is no table, and names the line."""
    readers: dict[str, Callable[[Path], Iterator[Cells]]] = {
        ".csv": lambda path: _separated(path, ","),
        ".tsv": lambda path: _separated(path, "\t"),
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json_lines,
        ".parquet": _parquet,
    }
    suffix = plain_text.content_suffix(table)
    # By the name here, since a CSV and a TSV begin alike; whether it is compressed, the first bytes say.
    if suffix not in readers:
        raise ValueError(
            f"a table is one of {', '.join(readers)}, or one of them as {', '.join(plain_text.COMPRESSED)}"
        )
    if not table.is_file():
        raise ValueError("no such file")
    yield from readers[suffix](table)


def _separated(table: Path, delimiter: str) -> Iterator[Cells]:
    # csv wants line ends as they stand there, since a cell in quotes may hold some.
    with plain_text.lines(table, newline="") as file, _long_cells():
        # Not strict, csv takes a quote that is never closed for a cell that holds the rest of the table.
        reader = csv.reader(plain_text.bounded(file), strict=True, delimiter=delimiter)
        try:
            columns = next(reader, [])
            refuse_twice(columns, "line 1: column")
            for cells in reader:
                # A blank line is no row.
                if cells and len(cells) != len(columns):
                    raise ValueError(
                        f"line {reader.line_num}: expected {counted(len(columns), 'cell')}, got {len(cells)}"
                    )
                if cells:
                    yield reader.line_num, _without_empty(dict(zip(columns, cells, strict=True)))
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error


@contextmanager
def _long_cells() -> Iterator[None]:
    """Take long cells: the limit of csv, 131 072 characters, is for the whole process."""
    before = csv.field_size_limit(plain_text.MAX_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _json_lines(table: Path) -> Iterator[Cells]:
    # No other character ends a line of JSON lines: a text may hold a carriage return.
    with plain_text.lines(table, newline="\n") as file:
        for number, line in enumerate(plain_text.bounded(file), start=1):
            if line.strip():
                yield number, _without_empty(json_object(line, number))


def json_object(line: str, number: int) -> dict[str, Any]:
    """Return the object on a line of JSON; ValueError names the line where there is none."""
    try:
        # By pairs: of two equal keys json would keep the last one, in silence.
        cells = json.loads(line, object_pairs_hook=_object)
        if "\\u" in line:
            # Half of a character that takes two is valid JSON, and no text.
            json.dumps(cells, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"line {number}: {shown(error.object[error.start : error.end])} is half a character"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number}: not JSON ({error}); expected an object, got {shown(line.strip())}") from error
    if not isinstance(cells, dict):
        raise ValueError(  # noqa: TRY004 - a user's slip
            f"line {number}: expected an object, got {type(cells).__name__}; write one object per line"
        )
    return cells


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_twice([name for name, _ in pairs], "key")
    return dict(pairs)


def refuse_twice(names: Sequence[str], what: str) -> None:
    """Raise ValueError that names the first of what must be there once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {shown(twice[0])} is there twice; leave one out")


def _parquet(table: Path) -> Iterator[Cells]:
    try:
        from pyarrow import lib, parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install pyarrow") from error
    try:
        # With a buffer pyarrow reads a column in pieces, and not all of a row group at once.
        with parquet.ParquetFile(table, buffer_size=_BUFFER_BYTES) as file:
            refuse_twice(file.schema_arrow.names, "column")
            number = 0
            for batch in file.iter_batches(_ROWS_A_BATCH):
                for cells in _rows(batch, number):
                    number += 1
                    yield number, _without_empty(cells)
    except (lib.ArrowException, OSError) as error:
        raise ValueError(f"not a Parquet table ({error})") from error


def _rows(batch: Any, before: int) -> Iterable[dict[str, Any]]:  # noqa: ANN401 - pyarrow is untyped
    if batch.nbytes > _MOST_AT_ONCE:
        return _one_by_one(batch, before)
    try:
        # The usual way, all rows in one call. Only where it fails is the row looked for that is to blame.
        return batch.to_pylist()  # type: ignore[no-any-return]
    except ValueError:
        return _one_by_one(batch, before)


def _one_by_one(batch: Any, before: int) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - pyarrow is untyped
    """Yield the rows of a batch up to one that holds a value that is none, or is longer than any line may be."""
    for number in range(batch.num_rows):
        row = batch.slice(number, 1)
        if row.nbytes > plain_text.MAX_LINE:
            raise ValueError(f"line {before + number + 1}: is longer than {plain_text.MAX_LINE}; cut it into several")
        try:
            yield from row.to_pylist()
        except ValueError as error:
            raise ValueError(f"line {before + number + 1}: holds a value that cannot be read ({error})") from error


def _without_empty(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {column: cell for column, cell in cells.items() if not is_empty(cell)}
