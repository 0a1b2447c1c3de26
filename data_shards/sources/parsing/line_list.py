"""Lists in which the number of a line says what the line is about, such as the names of classes by their numbers.

A line that somebody added would move all behind it by one, in silence; so it is refused, not skipped.
"""

from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from data_shards.files.quoting import shown
from data_shards.sources.parsing import plain_text


def names(path: Path) -> list[str]:
    """Return the names of classes in a file, one a line; ValueError too for two classes of one name."""
    try:
        with plain_text.lines(path, newline=None) as file:
            found = entries(plain_text.bounded(file))
        _refuse_twins(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def entries(lines: Iterable[str]) -> list[str]:
    """Return the lines without blanks around them, and without blank lines at the end.

    ValueError names a blank line before others, and one that begins as a comment.
    """
    found = [line.strip() for line in lines]
    while found and not found[-1]:
        found.pop()
    for number, line in enumerate(found, start=1):
        if not line:
            raise ValueError(
                f"line {number}: is blank, and lines are counted here; remove it, or write what belongs there"
            )
        if line.startswith("#"):
            raise ValueError(
                f"line {number}: {shown(line)} begins with #, and lines are counted here; remove it, or the # of a name"
            )
    return found


def _refuse_twins(found: Iterable[str]) -> None:
    line_of: dict[str, int] = {}
    for number, name in enumerate(found, start=1):
        # As a person sees them: an accented letter is one character or two, by the program that wrote the list.
        first = line_of.setdefault(normalize("NFC", name), number)
        if first != number:
            raise ValueError(
                f"lines {first} and {number} both name the class {shown(name)}; give one of them another name"
            )
