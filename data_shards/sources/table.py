"""A table, one row a sample: CSV, JSON lines or Parquet.

Columns image, audio, video, points hold paths relative to the table; text holds the text itself, or a path that ends in
.txt. label is a class number or name, weight a number, split a name ("train" by default). Empty cells are absent.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from data_shards.build import BuildOptions, build_table
from data_shards.manifest import MODALITIES, Manifest
from data_shards.members import modality_of
from data_shards.rows import Content, File, Literal, Row

COLUMNS = (*MODALITIES, "label", "weight", "split")
Cells = tuple[int, dict[str, Any]]
"""Line in the table, and the cells by column."""


def build(table: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards from a table; ValueError names the line of what is wrong in it."""
    rows, label_names = read(table)
    return build_table(rows, out, label_names=label_names, **options)


def read(table: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of a table and its class names: the numbers up to the largest one, or the names in order."""
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
            labelled.append(_Labelled(_row(line, cells, table.parent), cells.get("label")))
    except (ValueError, OSError) as error:
        raise ValueError(f"{table}: {error}") from error
    return _with_labels(labelled, table)


@dataclass(frozen=True)
class _Labelled:
    row: Row
    label: Any


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
    unknown = sorted(cells.keys() - set(COLUMNS))
    if unknown:
        raise ValueError(f"unknown columns {', '.join(unknown)}; a table has {', '.join(COLUMNS)}")


def _row(line: int, cells: Mapping[str, Any], folder: Path) -> Row:
    members = tuple(_member(line, column, str(cells[column]), folder) for column in MODALITIES if column in cells)
    if not members:
        raise ValueError(f"line {line}: has none of {', '.join(MODALITIES)}")
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


def _with_labels(labelled: Sequence[_Labelled], table: Path) -> tuple[list[Row], list[str]]:
    """Number the classes: cells that are all numbers are the numbers; otherwise names, in alphabetical order."""
    cells = {line.row.line: str(line.label) for line in labelled if line.label is not None}
    if not cells:
        return [line.row for line in labelled], []
    if all(cell.lstrip("-").isdecimal() for cell in cells.values()):
        numbers = {line: int(cell) for line, cell in cells.items()}
        for line, number in numbers.items():
            if number < 0:
                raise ValueError(f"{table}: line {line}: label {number} is out of range; labels are numbered from 0")
        names = [str(number) for number in range(max(numbers.values()) + 1)]
    else:
        names = sorted(set(cells.values()))
        of_name = {name: number for number, name in enumerate(names)}
        numbers = {line: of_name[cell] for line, cell in cells.items()}
    return [replace(line.row, label=numbers.get(line.row.line)) for line in labelled], names
