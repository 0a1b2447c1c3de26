"""Cells of a table to numbers that a network is to answer: one, or a list of several."""

import ast
import math
import numbers as kinds
from collections.abc import Sequence
from decimal import Decimal

from data_shards.files.quoting import shown
from data_shards.format.annotations import MAX_VALUE
from data_shards.sources.parsing.labels import is_empty

_NONE = ("", "nan", "<na>", "none", "null")


def numbers(line: int, column: str, cell: object) -> tuple[float, ...]:
    """Return the numbers of a cell, NaN for one of several that is not known; none where the cell is empty.

    ValueError names the line of what is no number.
    """
    listed = _listed(cell)
    found = [_number(part) for part in ([cell] if listed is None else listed)]
    if None in found:
        raise ValueError(
            f"line {line}: {column} {shown(cell)} is no number; write a number, or a list such as [0.5, 2], and leave "
            "the cell empty where there is none"
        )
    known = tuple(number for number in found if number is not None)
    if any(abs(number) > MAX_VALUE for number in known):
        raise ValueError(f"line {line}: {column} {shown(cell)} is out of range; values are up to {MAX_VALUE:g}")
    return () if all(map(math.isnan, known)) else known


def _listed(cell: object) -> Sequence[object] | None:
    """Return the cells of a list, also of one that is written as text; None where the cell is no list."""
    if isinstance(cell, str) and cell.strip()[:1] in ("[", "("):
        try:
            # A literal of Python: it has None, and no name for what pandas and JSON write for a gap.
            cell = ast.literal_eval(cell.strip().replace("nan", "None").replace("null", "None"))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return cell if isinstance(cell, list | tuple) else None


def _number(cell: object) -> float | None:
    """Return a number, NaN for an empty cell, None for what is none."""
    if is_empty(cell) or (isinstance(cell, str) and cell.strip().lower() in _NONE):
        return math.nan
    # True is a number to Python alone.
    if isinstance(cell, bool) or not isinstance(cell, str | kinds.Real | Decimal):
        return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number
