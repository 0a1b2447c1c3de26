"""The records of a run, read as far as possible. Damage is reported once and ends nothing.

Standard library only, see atomic.py.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from data_shards.files import typed_json
from data_shards.files.display import printable

T = TypeVar("T")
_MOST = 2**63
_BLOCK_BYTES = 1 << 16


def entry(schema: type[T], path: Path) -> T | None:
    """Return the dataclass in a file; None if there is none or it cannot be read, which is reported."""
    try:
        return typed_json.read(schema, path)
    except ValueError as error:
        # What is not there yet is no damage: half of a run's records appear only when something happens.
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            tell(f"{error}; skipped")
        return None


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON lines file, each with a `step` and a `kind`; report how many lines are invalid.

    A last line without an end is what a killed process had time to write, and is left out in silence.
    """
    whole, damaged = [], 0
    for line in split(path):
        record = record_of(line)
        if record is not None:
            whole.append(record)
        else:
            damaged += line.endswith(b"\n")
    if damaged:
        tell(f"{path}: {damaged} of {len(whole) + damaged} lines cannot be read; skipped")
    return whole


def split(path: Path) -> list[bytes]:
    """Return the lines of a file with their ends; none where there is no file."""
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


def newest_first(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, the last one first; none where there is no file.

    Of a long file only as much is read as is asked for.
    """
    with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
        start, rest = file.seek(0, os.SEEK_END), b""
        while start:
            stop, start = start, max(0, start - _BLOCK_BYTES)
            file.seek(start)
            first, *lines = (file.read(stop - start) + rest).splitlines(keepends=True)
            yield from reversed(lines)
            # The first line of a block may begin in the block before it.
            rest = first
        if rest:
            yield rest


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None where it is damaged."""
    try:
        record = typed_json.parse_object(line)
    except ValueError:
        return None
    step: Any = record.get("step")
    is_step = is_number(step) and 0 <= step < _MOST
    # No reader needs to expect numbers that no float can hold.
    is_sane = all(abs(value) < _MOST for value in record.values() if isinstance(value, int))
    return record if is_step and is_sane and isinstance(record.get("kind"), str) else None


def is_number(value: object) -> bool:
    """Return whether a value of a record is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# Once a process: a command that follows a run reads the same damaged file again and again.
@cache
def tell(sentence: str) -> None:
    """Print a sentence to standard error, once per process."""
    sys.stderr.write(f"perceiver: {printable(sentence)}\n")
