"""From cells of a table to labels: numbers, names, empty cells and lists.

A number is a number however it is written: 3, 3.0, " 3", "+3", "3e0", "03". Of typed tables and of text the same cells
give the same labels.
"""

import ast
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from data_shards.files.quoting import MAX_SHOWN, shown
from data_shards.sources.parsing.class_names import one_spelling

MAX_CLASSES = 1_000_000
"""A number beyond is a mistake: the manifest lists every class up to the largest."""
# inf as well: it is to be refused as a number, and not to be a class of that name.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?inf", re.IGNORECASE)
# Several numbers without brackets, as people write a list into a spreadsheet: never the name of a class.
_NUMBERS = re.compile(rf"[\[({{]*\s*(?:{_NUMBER.pattern})(?:[\s,;|/]+(?:{_NUMBER.pattern}))+\s*[\])}}]*", re.IGNORECASE)
_NO_LABEL = ("nan", "<na>")
"""The text that pandas writes for a gap."""


@dataclass(frozen=True)
class Labels:
    """The labels of one column."""

    of_line: dict[int, tuple[int, ...]]
    """The labels by line, for the lines that have any."""
    names: list[str] = field(default_factory=list)
    """The names of the classes: the numbers up to the largest one, or the names in order."""
    several: bool = False
    """True where a row has more than one; lists of one are a way to write it."""


def is_empty(cell: object) -> bool:
    """Return whether a cell holds nothing: an absent one, one of blanks, or not a number, as pandas writes gaps."""
    if isinstance(cell, str):
        return not cell.strip()
    # Not of whole numbers, some of which are larger than any float.
    if isinstance(cell, numbers.Real | Decimal) and not isinstance(cell, numbers.Integral):
        return math.isnan(cell)
    return cell is None


def numbered(cells: Mapping[int, object], column: str) -> Labels:
    """Return the labels of a column's cells, by line; ValueError names the line of what is none.

    If all are numbers, they are the labels; if all are names, these are numbered in alphabetical order.
    """
    parsed: dict[int, tuple[int | str, ...]] = {}
    for line, cell in cells.items():
        try:
            listed = _listed(cell, column)
            parsed[line] = _values([cell] if listed is None else listed)
        except ValueError as error:
            raise ValueError(f"line {line}: {column} {_as_written(cell)} {error}") from error
    given = {line: values for line, values in parsed.items() if values}
    _refuse_vectors(given, column)
    return _in_order(given, column)


def _refuse_vectors(parsed: Mapping[int, Sequence[int | str]], column: str) -> None:
    """Raise ValueError where the lists have a place for each class, with a one in it, in place of classes."""
    written = {tuple(values) for values in parsed.values()}
    if len({len(values) for values in written}) != 1 or not {each for values in written for each in values} <= {0, 1}:
        return
    # [0, 1] in every row may be two classes. A list that holds one twice is none, and different lists of one length,
    # all of zeros and ones, are hardly any.
    if any(len(set(values)) < len(values) for values in written) or len(written) > 1 < len(next(iter(written))):
        line, values = next(iter(parsed.items()))
        raise ValueError(
            f"line {line}: {column} {shown(list(values))} looks like a place for each class, as all of the column do; "
            "write the numbers of the classes that a row has, such as [0, 2]"
        )


def _as_written(cell: object) -> str:
    """Return a cell for a message: a number without quotes."""
    return cell.strip() if isinstance(cell, str) and len(cell) < MAX_SHOWN and _is_number(cell) else shown(cell)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None


def _in_order(parsed: Mapping[int, Sequence[int | str]], column: str) -> Labels:
    number = next(
        ((line, value) for line, values in parsed.items() for value in values if isinstance(value, int)), None
    )
    name = next(((line, value) for line, values in parsed.items() for value in values if isinstance(value, str)), None)
    if number and name:
        raise ValueError(
            f"{column}: is a number on line {number[0]} ({number[1]}) and a name on line {name[0]} ({shown(name[1])}); "
            "write numbers alone or names alone, and leave a cell empty where there is no label"
        )
    names: list[str] | range = sorted({str(value) for values in parsed.values() for value in values})
    if number:
        # Up to the largest, with those in between that no row has: numbers are the user's, and must stay what they are.
        names = range(max(int(value) for values in parsed.values() for value in values) + 1)
    else:
        spelling = one_spelling(map(str, names))
        names = sorted(set(spelling.values()))
        parsed = {line: tuple(spelling[str(name)] for name in values) for line, values in parsed.items()}
    place = {name: at for at, name in enumerate(names)}
    of_line = {line: tuple(dict.fromkeys(place[value] for value in values)) for line, values in parsed.items()}
    several = any(len(classes) > 1 for classes in of_line.values())
    return Labels(of_line, [str(name) for name in names], several=several)


def _listed(cell: object, column: str) -> Sequence[object] | None:
    """Return the cells of a list, also of one that is written as text; None where the cell is no list."""
    found = _parsed(cell.strip()) if isinstance(cell, str) else cell
    if not isinstance(found, list | tuple):
        return None
    if column != "label":
        raise ValueError("is a list; only the column label may hold several")
    return found


def _parsed(text: str) -> object:
    """Return the list that a text is; the text where it is none."""
    brackets = text[:1] + text[-1:]
    # A list in CSV is a text. literal_eval reads it and runs nothing.
    if brackets in ("[]", "()"):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
        if isinstance(found, list | tuple):
            return found
    if brackets == "[]" or _NUMBERS.fullmatch(text):
        raise ValueError(
            'looks like several labels; write them as a list, such as [0, 1] or ["a", "b"], and a number without '
            "separators"
        )
    return text


def _values(cells: Sequence[object]) -> tuple[int | str, ...]:
    """Return the classes of cells; none where the only cell is empty."""
    found = [_value(cell) for cell in cells]
    if None in found and len(found) > 1:
        raise ValueError("has an empty place; write as many labels as there are")
    return tuple(value for value in found if value is not None)


def _value(cell: object) -> int | str | None:
    """Return the class of one cell by number or name, None where it is empty."""
    if isinstance(cell, bytes):
        cell = cell.decode()
    if is_empty(cell) or (isinstance(cell, str) and cell.strip().lower() in _NO_LABEL):
        return None
    if isinstance(cell, list | tuple | dict | set):
        raise ValueError("holds more than one class; write its number or its name")  # noqa: TRY004 - a user's slip
    # true and false become the same names in a typed table as in CSV.
    text = str(cell).strip()
    return _whole(text) if _is_number(text) else text


def _whole(text: str) -> int:
    """Return a class number. Its size is checked first: 1e999999 is a number of a million digits."""
    try:
        number = Decimal(text)
    except ArithmeticError:
        number = Decimal("inf")
    # Below 0, too: -1 stands for no label elsewhere, and in a table an empty cell says that.
    if not 0 <= number < MAX_CLASSES:
        raise ValueError(f"is out of range; labels are numbered from 0 to {MAX_CLASSES - 1} at the most")
    if number != int(number):
        raise ValueError("is not a whole number; classes have whole numbers, or names")
    return int(number)
