"""Files that are in no shard, as samples under the names of members that a run reads.

cat.png                      photo reads png               a sample {png}
0001.left.png                left reads left.png           a sample {left.png}
scan.npy                     eeg alone reads eeg.npy       a sample {eeg.npy}
FOLDER                       every file below it           others are counted and told
pairs.csv, columns photo     by the names of the inputs,   a sample a row; its key is pairs.csv:LINE, or that of
and sound                    or of `data build table`      its column key
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.building.raw_sample import Content, Literal
from data_shards.config import DataConfig
from data_shards.files.quoting import counted, listed, shown
from data_shards.format.members import suffix_and_field
from data_shards.sources.parsing import cells as tables
from data_shards.sources.parsing.folder_files import HIDDEN, is_hidden, suffix_of, walk
from data_shards.sources.parsing.plain_text import content_suffix
from data_shards.sources.prediction.run_inputs import RunInputs, text_of
from data_shards.sources.table import FIELD

Tell = Callable[[str], None]
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
KEY = "key"
"""The column of a table with the keys of its rows."""
_NUM_KINDS = 10


@dataclass(frozen=True, slots=True)
class NewSample:
    """A sample that is in no shard."""

    key: str
    members: tuple[tuple[str, Content], ...] = ()
    """The suffix under which the run reads each, and the source of its bytes."""
    fields: tuple[tuple[str, str], ...] = ()
    """Texts of its record."""
    fault: str = ""
    """Why it cannot be read, where that is known already."""


def find(paths: Sequence[str], config: DataConfig, tell: Tell) -> list[NewSample]:
    """Return the samples of files, folders and tables, in the order in which they are named; a file counts once.

    ValueError for a name that is no file, and where nothing is found.
    """
    reading = RunInputs(config.ordered_inputs)
    samples: list[NewSample] = []
    known: set[str] = set()
    for path in paths:
        found = list(_of(path, reading, tell))
        new = [sample for real, sample in found if real not in known]
        if len(new) < len(found):
            tell(f"{path}: {len(found) - len(new)} of its files were named before; each is answered once")
        # By where a file is, and not by how it was named: photos/a.png and photos are the same a.png.
        known |= {real for real, _ in found}
        samples += new
    return samples


def _of(path: str, reading: RunInputs, tell: Tell) -> Iterator[tuple[str, NewSample]]:
    """Yield the samples of a path, each with what tells it from others that are named in another way."""
    place = Path(path)
    if place.is_dir():
        yield from _of_folder(place, reading, tell)
    elif not place.exists():
        raise ValueError(f"{path}: no such file or folder")
    # A run may read .json, or .csv by a plug-in, as a member: then the file is a sample and no table.
    elif content_suffix(place) in TABLES and not reading.member(place):
        # By the row: a table that is named twice is answered once, and two rows alike are answered twice.
        for number, sample in enumerate(_of_table(place, reading, tell)):
            yield f"{place.absolute()}:{number}", sample
    else:
        yield str(place.absolute()), _of_file(path, reading)


def _of_folder(folder: Path, reading: RunInputs, tell: Tell) -> Iterator[tuple[str, NewSample]]:
    passed: Counter[str] = Counter()
    is_empty = True
    for parent, names, files in walk(folder):
        for name in files:
            path = os.path.join(parent, name)  # noqa: PTH118 - a million of them
            if is_hidden((*names, name)):
                passed[HIDDEN] += 1
            elif reading.member(Path(path)) is None:
                passed[suffix_of(name)] += 1
            else:
                is_empty = False
                yield str(Path(path).absolute()), _of_file(path, reading)
    kinds = ", ".join(f"{count} {kind}" for kind, count in passed.most_common(_NUM_KINDS))
    if is_empty:
        there = f"; there are {kinds}" if passed else ", and no other"
        tars = "; `perceiver data index` makes shards of tars" if passed[".tar"] else ""
        raise ValueError(f"{folder}: has no file that the run reads ({reading.words()}){there}{tars}")
    if passed:
        tell(f"{folder}: skipped, not read by the run ({reading.words()}): {kinds}")


def _of_table(table: Path, reading: RunInputs, tell: Tell) -> Iterator[NewSample]:
    unread, keys = Counter[str](), Counter[str]()
    columns: dict[str, Any] | None = None
    try:
        for line, row in tables.read(table):
            columns = {column: cell for column, cell in row.items() if column != KEY}
            key = _key(str(row.get(KEY, f"{table}:{line}")))
            keys[key] += 1
            # Counted over all rows: the lines of a JSON table need not have the same columns.
            unread.update(column for column in columns if not reading.reads(column))
            try:
                yield _of_row(key, columns, table.parent, reading)
            except ValueError as error:
                # It keeps its place and its key: the table of answers says what became of it.
                yield NewSample(key, fault=f"line {line}: {error}")
    except (ValueError, OSError) as error:
        raise ValueError(f"{table}: {error}") from error
    if columns is None:
        raise ValueError(f"{table}: has no rows")
    if twice := [key for key, count in keys.items() if count > 1]:
        tell(
            f"{table}: {counted(len(twice), 'key')} of several rows, such as {shown(twice[0])}: their answers share it"
        )
    if unread:
        names = listed(sorted(unread))
        if all(not reading.reads(column) for column in columns):
            raise ValueError(f"{table}: has no column that the run reads, only {names}; expected {reading.columns()}")
        tell(f"{table}: columns that the run does not read: {names}")


def _of_row(key: str, columns: Mapping[str, Any], folder: Path, reading: RunInputs) -> NewSample:
    members: dict[str, Content] = {}
    fields: dict[str, str] = {}
    for column, cell in columns.items():
        if not reading.reads(column):
            continue
        if column.startswith(FIELD):
            fields[column.removeprefix(FIELD)] = text_of(column, cell)
            continue
        suffix, content = reading.of_cell(column, cell, folder)
        suffix, field = suffix_and_field(suffix)
        if field and isinstance(content, Literal):
            fields[field] = content.value.decode()
        elif suffix in members:
            raise ValueError(f"{column}: another column is read as .{suffix} already; leave one out")
        else:
            members[suffix] = content
    if not members and not fields:
        raise ValueError(f"has no cell in a column that the run reads; expected {reading.columns()}")
    return NewSample(key, tuple(members.items()), tuple(fields.items()))


def _of_file(path: str, reading: RunInputs) -> NewSample:
    try:
        suffix = reading.member(Path(path))
    except ValueError as error:
        return NewSample(_key(path), fault=str(error))
    if suffix is None:
        return NewSample(_key(path), fault=f"is no kind of file that the run reads ({reading.words()})")
    return NewSample(_key(path), ((suffix_and_field(suffix)[0], reading.file(path, suffix)),))


def _key(name: str) -> str:
    """Return a key that every format can hold, whatever bytes a file's name has."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
