"""Values in messages: written as Python does, and truncated, so that no cell of a table fills the terminal."""

import reprlib
from collections.abc import Sequence

MAX_SHOWN = 60
"""Characters or bytes of a value."""
MAX_UNQUOTED = 300
"""Characters of a text that needs no quotes."""
MAX_MESSAGE = 20_000
"""The maximum length of a whole error message, which may list many faults."""
MAX_LISTED = 10
"""The maximum number of names in a list."""
# repr() of a list of a million cells would build the whole text before it is cut.
_NESTED = reprlib.Repr()
_NESTED.maxlevel, _NESTED.maxstring, _NESTED.maxother = 2, 20, 20


def shown(value: object) -> str:
    """Return the value in quotes or brackets; a long value is truncated and its length is added."""
    if isinstance(value, str | bytes | bytearray):
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:MAX_SHOWN]!r}" + (f"... ({len(value)} {unit})" if len(value) > MAX_SHOWN else "")
    text = _NESTED.repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({type(value).__name__})"


def cut(text: str, most: int = MAX_UNQUOTED) -> str:
    """Return a text that needs no quotes, such as a key or another error's words, in at most so many characters."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def counted(count: float, one: str, many: str = "", form: str = "") -> str:
    """Return a number with what it counts: 1 sample, 2 samples.

    `many` is needed where no s or es is added to `one`: "1 file is", "2 files are". `form` writes the number.
    """
    # As it is written: with a form such as .0f, 0.9 is 1 sample.
    number = f"{count:{form}}"
    return (
        f"{number} {one if number == '1' else many or one + ('es' if one.endswith(('s', 'x', 'tch', 'sh')) else 's')}"
    )


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    first = [name if _is_plain(name) else shown(name) for name in names[:MAX_LISTED]]
    more = [f"{len(names) - MAX_LISTED} more"] if names[MAX_LISTED:] else []
    return ", ".join([*first, *more])


def _is_plain(name: str) -> bool:
    """Return whether a name can be told from the words about it: it is not empty, and has no blanks at its ends."""
    return bool(name) and name.isprintable() and len(name) <= MAX_SHOWN and name == name.strip()
