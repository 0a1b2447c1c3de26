"""Clips of YouTube's videos: their files by the id in their names, and AudioSet's lists of them."""

import csv
from collections.abc import Iterable
from pathlib import Path

from data_shards.files.quoting import shown
from data_shards.sources.parsing import cells, plain_text
from data_shards.sources.parsing.class_names import distinct

YOUTUBE_ID_LETTERS = 11
_COLUMNS = ("index", "mid", "display_name")


def by_id(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the path of each clip by its whole name and by the YouTube id at its start, or after a Y there."""
    found: dict[str, Path] = {}
    for path in paths:
        # A name has times after the id, and some have a Y before it. A whole name wins over part of another.
        found.setdefault(path.stem[:YOUTUBE_ID_LETTERS], path)
        if path.stem.startswith("Y"):
            found.setdefault(path.stem[1 : 1 + YOUTUBE_ID_LETTERS], path)
        found[path.stem] = path
    return found


def segments(path: Path) -> list[tuple[str, list[str]]]:
    """Return (YouTube id, labels) of each line of one of AudioSet's lists."""
    lines = [line for line in _csv(path) if line and not line[0].startswith("#")]
    for line in lines:
        if len(line) != 4:
            raise ValueError(f"{path}: {shown(','.join(line))}: expected an id, start, end and labels in quotes")
    return [(identity, labels.split(",")) for identity, _, _, labels in lines]


def marks(path: Path) -> dict[str, str]:
    """Return the display name of each label's mark, in the order of their indices."""
    columns, *lines = _csv(path) or [[]]
    try:
        cells.refuse_twice([column for column in columns if column in _COLUMNS], "column")
        rows = sorted(
            (dict(zip(columns, line, strict=True)) for line in lines if line), key=lambda row: int(row["index"])
        )
        for column in ("index", "mid"):
            cells.refuse_twice([row[column] for row in rows], column)
        found = [row["mid"] for row in rows]
        return dict(zip(found, distinct([row["display_name"] for row in rows], found), strict=True))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected the columns index, mid, display_name ({error})") from error


def _csv(path: Path) -> list[list[str]]:
    try:
        with plain_text.lines(path, newline="") as file:
            # AudioSet's lists have a blank after each comma, before the quotes too.
            return list(csv.reader(file, skipinitialspace=True))
    except (OSError, csv.Error, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
