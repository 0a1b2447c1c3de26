"""A table with one row per sample: CSV, tab-separated values, JSON lines or Parquet.

Columns image, audio, video, points hold paths relative to the table; text holds the text itself, or a path that ends in
.txt; first, second and flow hold the paths of two frames and of the motion between them (.flo, or KITTI's PNG). label
is a class number or name, or a list of several, label.NAME a further one with classes of its own, value.NAME a number
to be answered or a list of them, weight a number, split a name ("train" by default). member.NAME holds the path of a
file that becomes the member NAME.SUFFIX, such as left.jpg of two cameras, and field.NAME a text that becomes a field of
the record, such as a caption: an input reads them where its `members` says so. Empty cells are absent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from data_shards.building.builder import BuildOptions, Tell, build_table
from data_shards.building.raw_sample import Content, File, Literal, NamedFile, Row
from data_shards.building.splits import TRAIN, split_of
from data_shards.files.display import masked
from data_shards.files.quoting import listed, shown
from data_shards.format.annotations import MAX_WEIGHT
from data_shards.format.manifest import Manifest
from data_shards.modalities.kinds.catalogue import MODALITIES, held_by, usual_suffixes
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.sources.parsing import cells as tables
from data_shards.sources.parsing import class_names, labels, numbers, pairs, plain_text

# From the catalogue: a new modality has its column without a line here.
FILES = tuple(kind().modality for kind in MODALITIES if kind is not FlowConfig and not kind.is_annotation)
PAIR = ("first", "second", "flow")
COLUMNS = (*FILES, *PAIR, "label", "weight", "split")
NAMED = "label."
"""The prefix of the columns of further labels."""
VALUE = "value."
"""The prefix of the columns of numbers to predict."""
MEMBER = "member."
"""The prefix of the columns of files that become members of their own."""
FIELD = "field."
"""The prefix of the columns of texts that are stored in the record."""
RESERVED = ("labels", "named_labels", "values", "weight")
"""Fields of the record that have a meaning of their own."""
MAX_SPLIT_LETTERS = 100
"""A split's shards have a folder of its name."""
MAX_HELD_BYTES = 1 << 30
"""The maximum size of all texts in a table together; they are held in memory."""
MAX_PATH = 4096
"""Letters of a path; no system takes longer ones."""


def build(table: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards from a table; ValueError names the line of what is wrong in it."""
    found = read(table, options.get("tell"))
    return found.build(out, found.rows, **options)


@dataclass(frozen=True)
class Table:
    """The contents of a table."""

    rows: list[Row]
    label_names: list[str]
    """The names of the classes: the numbers up to the largest one, or the names in order."""
    named_labels: dict[str, list[str]] = field(default_factory=dict)
    """The same for each further label."""

    def build(self, out: Path, rows: Sequence[Row], **options: Unpack[BuildOptions]) -> Manifest:
        """Build shards from its rows, or from what was made of them."""
        return build_table(rows, out, label_names=self.label_names, named_labels=self.named_labels, **options)


def read(table: Path, tell: Tell | None = None) -> Table:
    """Return the rows of a table and their classes; ValueError names the line of what is wrong in it."""
    rows: list[Row] = []
    given: dict[str, dict[int, object]] = {}
    held = 0
    try:
        for line, cells in tables.read(table):
            # Row by row: each line of JSON may have other names.
            _refuse_unknown_columns(cells)
            rows.append(_row(line, cells, table.parent))
            held += sum(len(content.value) for content in rows[-1].members if isinstance(content, Literal))
            # While it is read: a table that does not fit into the memory must not fill it first.
            _refuse_long(line, held)
            for column in filter(_is_label, cells):
                given.setdefault(column, {})[line] = cells[column]
        _refuse_no_rows(rows)
        found = {column: labels.numbered(given[column], column) for column in sorted(given)}
    except (ValueError, OSError) as error:
        raise ValueError(f"{table}: {error}") from error
    if tell:
        for sentence in _remarks(rows, found):
            tell(sentence)
    return _with_labels(rows, found)


def _remarks(rows: Sequence[Row], found: Mapping[str, labels.Labels]) -> Iterator[str]:
    """Yield what a user should know of the labels and values."""
    for name in sorted({name for row in rows for name in row.values}):
        if count := sum(name not in row.values for row in rows):
            yield f"{VALUE}{name}: {count} of {len(rows)} rows have none"
    for column, of in found.items():
        if len(of.of_line) < len(rows):
            yield f"{column}: {len(rows) - len(of.of_line)} of {len(rows)} rows have none"
        if of.several:
            yield f"{column}: rows have several; a run reads them with data.multi_label=true"
        sentences = (*class_names.look_alikes(of.names), *class_names.gaps(of.names))
        yield from (f"{column}: {sentence}" for sentence in sentences)


def _refuse_no_rows(rows: Sequence[Row]) -> None:
    if not rows:
        raise ValueError("has no rows; write a line for each sample")


def _refuse_long(line: int, num_bytes: int) -> None:
    if num_bytes > MAX_HELD_BYTES:
        raise ValueError(
            f"line {line}: the texts up to here have more than {MAX_HELD_BYTES} bytes; write them to files and name "
            "these in the column, or split the table"
        )


def _refuse_unknown_columns(cells: Mapping[str, Any]) -> None:
    unknown = sorted(column for column in cells if column not in COLUMNS and not _is_named(column))
    if unknown:
        known = ", ".join((*COLUMNS, *(f"{prefix}NAME" for prefix in (NAMED, VALUE, MEMBER, FIELD))))
        raise ValueError(f"unknown columns {listed(unknown)}; a table has {known}")


def _is_label(column: str) -> bool:
    return column == "label" or (column.startswith(NAMED) and column.removeprefix(NAMED).isidentifier())


def _is_named(column: str) -> bool:
    return _is_label(column) or any(_begins(column, prefix) for prefix in (VALUE, MEMBER, FIELD))


def _is_value(column: str) -> bool:
    return _begins(column, VALUE)


def _begins(column: str, prefix: str) -> bool:
    """Return whether a column is of that kind: what follows is a name, and none that the record keeps for itself."""
    name = column.removeprefix(prefix)
    return column.startswith(prefix) and name.isidentifier() and not (prefix == FIELD and name in RESERVED)


def _row(line: int, cells: Mapping[str, Any], folder: Path) -> Row:
    members = tuple(_member(line, column, cells[column], folder) for column in FILES if column in cells)
    members += tuple(_named(line, column, cells[column], folder) for column in cells if _begins(column, MEMBER))
    members += _pair(line, cells, folder)
    fields = {column.removeprefix(FIELD): cells[column] for column in cells if _begins(column, FIELD)}
    if not members and not fields:
        raise ValueError(f"line {line}: has none of {', '.join((*FILES, 'flow', f'{MEMBER}NAME', f'{FIELD}NAME'))}")
    # Two members of one name would make one of them unreachable in the tar.
    extensions = [content.extension for content in members]
    if len(set(extensions)) < len(extensions):
        twice = sorted({each for each in extensions if extensions.count(each) > 1})
        raise ValueError(f"line {line}: two columns make the member {listed(twice)}; name one of them otherwise")
    for name, text in fields.items():
        _text(line, f"{FIELD}{name}", text)
    try:
        # OverflowError, too: JSON may hold a whole number that is larger than any float.
        weight = float(cells.get("weight", 1.0))
    except (TypeError, ValueError, OverflowError):
        # Out of range: the one sentence below refuses it.
        weight = -1.0
    if not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(f"line {line}: weight {shown(cells['weight'])} is not a number from 0 to {MAX_WEIGHT:g}")
    found = {column: numbers.numbers(line, column, cells[column]) for column in sorted(filter(_is_value, cells))}
    values = {column.removeprefix(VALUE): several for column, several in found.items() if several}
    split = _split(line, cells.get("split", TRAIN))
    return Row(line, members, fields=fields, values=values, weight=weight, split=split)


def _split(line: int, cell: object) -> str:
    """Return the split that a cell names; those that folders may have are meant in any case."""
    name = str(cell).strip()
    if not name.isidentifier() or len(name) > MAX_SPLIT_LETTERS:
        raise ValueError(f"line {line}: split {shown(cell)} is not a name of letters and digits, such as train or test")
    # "Train" of one row and "train" of the next must not become two splits.
    return split_of(name) or name


def _member(line: int, column: str, cell: object, folder: Path) -> Content:
    if column == "text":
        # Other programs write texts to Parquet as bytes.
        text = _utf8(line, cell) if isinstance(cell, bytes) else _text(line, column, cell)
        # No path is longer than that: a whole page may end in ".txt", too.
        is_path = len(text) <= MAX_PATH and plain_text.content_suffix(text.rpartition("/")[2]) == ".txt"
        return plain_text.TextFile(str(folder / text)) if is_path else Literal(text.encode(), "txt")
    path = _path(line, column, cell)
    content = File(str(folder / path))
    if content.extension not in usual_suffixes(column):
        raise ValueError(f"line {line}: {shown(path)} is not a kind of {column} file that is read; convert it")
    return content


def _named(line: int, column: str, cell: object, folder: Path) -> NamedFile:
    path = _path(line, column, cell)
    content = NamedFile(str(folder / path), column.removeprefix(MEMBER).lower())
    if held_by(content.extension) is None:
        raise ValueError(f"line {line}: {shown(path)} is not a kind of file that is read; convert it")
    return content


def _path(line: int, column: str, cell: object) -> str:
    path = _text(line, column, cell)
    if "://" in path:
        # Masked: a URL may hold a password, and this sentence ends in logs.
        raise ValueError(f"line {line}: {column} {shown(masked(path))} is a URL; download it and write its path")
    if len(path) > MAX_PATH:
        raise ValueError(f"line {line}: {column} {shown(path)} is longer than any path; write where the file is")
    return path


def _text(line: int, column: str, cell: object) -> str:
    if not isinstance(cell, str):
        what = "a text" if column == "text" or column.startswith(FIELD) else "the path of a file"
        raise ValueError(  # noqa: TRY004 - a user's slip
            f"line {line}: {column} expected {what}, got {type(cell).__name__} {shown(cell)}"
        )
    return cell


def _utf8(line: int, cell: bytes) -> str:
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"line {line}: text {shown(cell)} is not UTF-8 at byte {error.start}; convert it") from error


def _pair(line: int, cells: Mapping[str, Any], folder: Path) -> tuple[Content, ...]:
    """Two frames and their motion, where the row has them."""
    given = [column for column in PAIR if column in cells]
    if not given:
        return ()
    if len(given) < len(PAIR):
        raise ValueError(f"line {line}: has {' and '.join(given)}; a pair of frames needs first, second and flow")
    first, second, motion = (str(folder / _path(line, column, cells[column])) for column in PAIR)
    contents = pairs.pair(first, second, motion)
    for (column, content), patterns in zip(zip(PAIR, contents, strict=True), FlowConfig().roles.values(), strict=True):
        if content.extension not in patterns:
            raise ValueError(
                f"line {line}: {shown(cells[column])} is not a kind of {column} file that is read; convert it"
            )
    return contents


def _with_labels(rows: Sequence[Row], found: Mapping[str, labels.Labels]) -> Table:
    """Return the rows with their labels and the names of the classes."""
    label = found.get("label", labels.Labels({}))
    named = {column.removeprefix(NAMED): of for column, of in found.items() if column != "label"}
    labelled = []
    for row in rows:
        classes = label.of_line.get(row.line, ())
        further = {name: of.of_line[row.line][0] for name, of in named.items() if row.line in of.of_line}
        # If one row has several, all are lists: a run reads one kind or the other.
        one = None if label.several or not classes else classes[0]
        labelled.append(replace(row, label=one, labels=classes if label.several else (), named_labels=further))
    return Table(labelled, label.names, {name: of.names for name, of in named.items()})
