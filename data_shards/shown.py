"""How a value is shown in a message: as Python writes it, and cut, so that no table's cell fills the terminal."""

import reprlib
from collections.abc import Sequence

MAX_SHOWN = 60
"""Characters or bytes of a value."""

MAX_LISTED = 10
"""Of many names."""
_NESTED = reprlib.Repr()
_NESTED.maxlevel, _NESTED.maxstring, _NESTED.maxother = 2, 20, 20


def shown(value: object) -> str:
    """Return the value in quotes or brackets; a long one is cut and its length told."""
    if isinstance(value, str | bytes | bytearray):
        rest = (
            ""
            if len(value) <= MAX_SHOWN
            else f"... ({len(value)} {'characters' if isinstance(value, str) else 'bytes'})"
        )
        return f"{value[:MAX_SHOWN]!r}{rest}"
    text = _NESTED.repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({type(value).__name__})"


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    first = [name if name.isprintable() and len(name) <= MAX_SHOWN else shown(name) for name in names[:MAX_LISTED]]
    more = [f"{len(names) - MAX_LISTED} more"] if names[MAX_LISTED:] else []
    return ", ".join([*first, *more])
