"""A table, one row a sample: CSV, JSON lines or Parquet.

Columns image, audio, video, points hold paths relative to the table; text holds the text itself, or a path that ends in
.txt; first, second and flow hold the paths of two frames and of the motion between them (.flo). label is a class number
or name, label.NAME a further one with classes of its own, weight a number, split a name ("train" by default). Empty
cells are absent.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from data_shards.build import BuildOptions, build_table
from data_shards.manifest import MODALITIES, Manifest
from data_shards.members import content_of, modality_of
from data_shards.rows import Content, File, Frame, Literal, Row

FILES = tuple(modality for modality in MODALITIES if modality != "flow")
PAIR = ("first", "second", "flow")
COLUMNS = (*FILES, *PAIR, "label", "weight", "split")
NAMED = "label."
"""Begins the columns of further labels."""
Cells = tuple[int, dict[str, Any]]
"""Line in the table, and the cells by column."""


def build(table: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards from a table; ValueError names the line of what is wrong in it."""
    found = read(table)
    return found.build(out, found.rows, **options)


@dataclass(frozen=True)
class Table:
    """What a table says."""

    rows: list[Row]
    label_names: list[str]
    """Of the classes: the numbers up to the largest one, or the names in order."""
    named_labels: dict[str, list[str]] = field(default_factory=dict)
    """The same of each further label."""

    def build(self, out: Path, rows: Sequence[Row], **options: Unpack[BuildOptions]) -> Manifest:
        """Build shards from its rows, or from what was made of them."""
        return build_table(rows, out, label_names=self.label_names, named_labels=self.named_labels, **options)


def read(table: Path) -> Table:
    """Return the rows of a table and their classes; ValueError names the line of what is wrong in it."""
    readers: dict[str, Callable[[Path], Iterator[Cells]]] = {
        ".csv": _csv,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".parquet": _parquet,
    }
    if table.suffix.lower() not in readers:
        raise ValueError(f"{table}: a table is one of {', '.join(readers)}")
    if not table.is_file():
        raise ValueError(f"{table}: no such file")
    labelled = []
    try:
        for line, cells in readers[table.suffix.lower()](table):
            _refuse_unknown_columns(cells)
            labels = {column: str(cell) for column, cell in cells.items() if _is_label(column)}
            labelled.append(_Labelled(_row(line, cells, table.parent), labels))
        return _with_labels(labelled)
    except (ValueError, OSError) as error:
        raise ValueError(f"{table}: {error}") from error


@dataclass(frozen=True)
class _Labelled:
    row: Row
    labels: dict[str, str]
    """Cells by column."""


def _csv(table: Path) -> Iterator[Cells]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for cells in reader:
                if None in cells or None in cells.values():
                    raise ValueError(f"line {reader.line_num}: expected {len(reader.fieldnames or ())} cells")
                yield reader.line_num, {column: cell for column, cell in cells.items() if cell}
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error


def _json_lines(table: Path) -> Iterator[Cells]:
    with table.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: not JSON ({error})") from error
            if not isinstance(cells, dict):
                raise ValueError(f"line {number}: expected an object, got {type(cells).__name__}")  # noqa: TRY004 - a user's slip
            yield number, _without_empty(cells)


def _parquet(table: Path) -> Iterator[Cells]:
    try:
        from pyarrow import lib, parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install 'perceiver-trainer[parquet]'") from error
    try:
        with parquet.ParquetFile(table) as file:
            number = 0
            for batch in file.iter_batches():
                for cells in batch.to_pylist():
                    number += 1
                    yield number, _without_empty(cells)
    except lib.ArrowException as error:
        raise ValueError(f"not a Parquet table ({error})") from error


def _without_empty(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {column: cell for column, cell in cells.items() if cell is not None and cell != ""}


def _refuse_unknown_columns(cells: Mapping[str, Any]) -> None:
    unknown = sorted(column for column in cells if column not in COLUMNS and not _is_label(column))
    if unknown:
        raise ValueError(f"unknown columns {', '.join(unknown)}; a table has {', '.join(COLUMNS)}, {NAMED}NAME")


def _is_label(column: str) -> bool:
    return column == "label" or (column.startswith(NAMED) and column.removeprefix(NAMED).isidentifier())


def _row(line: int, cells: Mapping[str, Any], folder: Path) -> Row:
    members = tuple(_member(line, column, str(cells[column]), folder) for column in FILES if column in cells)
    members += _pair(line, cells, folder)
    if not members:
        raise ValueError(f"line {line}: has none of {', '.join((*FILES, 'flow'))}")
    try:
        weight = float(cells.get("weight", 1.0))
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise ValueError(f"line {line}: weight {cells['weight']!r} is not a number of at least 0")
    split = str(cells.get("split", "train"))
    if not split.isidentifier():
        raise ValueError(f"line {line}: split {split!r} is not a name of letters and digits, such as train or test")
    return Row(line, members, weight=weight, split=split)


def _member(line: int, column: str, cell: str, folder: Path) -> Content:
    if column == "text" and not cell.endswith(".txt"):
        return Literal(cell.encode(), "txt")
    content = File(str(folder / cell))
    if modality_of(content.extension) != column:
        raise ValueError(f"line {line}: {cell!r} is not a kind of {column} file that is read; convert it")
    return content


def _pair(line: int, cells: Mapping[str, Any], folder: Path) -> tuple[Content, ...]:
    """Two frames and their motion, where the row has them."""
    given = [column for column in PAIR if column in cells]
    if not given:
        return ()
    if len(given) < len(PAIR):
        raise ValueError(f"line {line}: has {' and '.join(given)}; a pair of frames needs first, second and flow")
    first, second, motion = (str(folder / str(cells[column])) for column in PAIR)
    contents = (Frame(first, "first"), Frame(second, "second"), File(motion))
    for column, content, expected in zip(PAIR, contents, ("flow", "flow", "motion"), strict=True):
        if content_of(content.extension) != expected:
            raise ValueError(f"line {line}: {cells[column]!r} is not a kind of {column} file that is read; convert it")
    return contents


def _with_labels(labelled: Sequence[_Labelled]) -> Table:
    """Number the classes of each label."""
    numbers: dict[str, dict[int, int]] = {}
    names: dict[str, list[str]] = {}
    for column in sorted({column for line in labelled for column in line.labels}):
        cells = {line.row.line: line.labels[column] for line in labelled if column in line.labels}
        numbers[column], names[column] = _numbered(cells, column)
    label, label_names = numbers.pop("label", {}), names.pop("label", [])
    rows = []
    for row in (line.row for line in labelled):
        named = {column.removeprefix(NAMED): of[row.line] for column, of in numbers.items() if row.line in of}
        rows.append(replace(row, label=label.get(row.line), named_labels=named))
    return Table(rows, label_names, {column.removeprefix(NAMED): classes for column, classes in names.items()})


def _numbered(cells: Mapping[int, str], column: str) -> tuple[dict[int, int], list[str]]:
    """Return numbers and names: cells, by line, that are all numbers are the numbers; else in alphabetical order."""
    if not all(cell.lstrip("-").isdecimal() for cell in cells.values()):
        names = sorted(set(cells.values()))
        of_name = {name: number for number, name in enumerate(names)}
        return {line: of_name[cell] for line, cell in cells.items()}, names
    numbers = {line: int(cell) for line, cell in cells.items()}
    for line, number in numbers.items():
        if number < 0:
            raise ValueError(f"line {line}: {column} {number} is out of range; labels are numbered from 0")
    return numbers, [str(number) for number in range(max(numbers.values()) + 1)]
