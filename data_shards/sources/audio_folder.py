"""Recordings: a folder a class, or one folder and AudioSet's CSV files with several labels a recording."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from data_shards.build import BuildOptions, build_table
from data_shards.manifest import Manifest
from data_shards.members import EXTENSIONS
from data_shards.rows import File, Row
from data_shards.sources import class_folders

YOUTUBE_ID_LETTERS = 11


def build(
    folder: Path,
    out: Path,
    *,
    segments: Mapping[str, Path] | None = None,
    classes: Path | None = None,
    **options: Unpack[BuildOptions],
) -> Manifest:
    """Build shards of the recordings below the folder.

    `segments` maps splits to AudioSet's lists (YouTube id, start, end, "label,label"), `classes` is its
    class_labels_indices.csv. A recording is found by the id that its name begins with, as in -0xzrMun0Rs_30.000.flac;
    one that is missing is a bad row. Without segments each folder is a class.
    """
    if segments is None:
        files, names = class_folders.find(folder, "audio")
        rows = [Row(line, (File(file.path),), file.label, split=file.split) for line, file in enumerate(files)]
    else:
        rows, names = read_segments(folder, segments, classes)
    return build_table(rows, out, label_names=names, **options)


def read_segments(folder: Path, segments: Mapping[str, Path], classes: Path | None) -> tuple[list[Row], list[str]]:
    """Return a row for each line of the lists, numbered through all of them, and the class names."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    listed = [(split, cells) for split, path in segments.items() for cells in _segments(path)]
    marks = _marks(classes) if classes else {mark: mark for mark in sorted({m for _, (_, ms) in listed for m in ms})}
    numbers = {mark: number for number, mark in enumerate(marks)}
    files = _by_id(folder)
    rows = []
    for line, (split, (identity, labels)) in enumerate(listed):
        unknown = [label for label in labels if label not in numbers]
        if unknown:
            raise ValueError(f"{classes}: has no class {unknown[0]!r}, which {identity} has")
        path = files.get(identity, str(folder / f"{identity}.wav"))
        rows.append(Row(line, (File(path),), labels=tuple(numbers[label] for label in labels), split=split))
    return rows, list(marks.values())


def _segments(path: Path) -> list[tuple[str, list[str]]]:
    """Return (YouTube id, labels) of each line of one of AudioSet's lists."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file, skipinitialspace=True) if line and not line[0].startswith("#")]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    for line in lines:
        if len(line) != 4:
            raise ValueError(f"{path}: {','.join(line)!r}: expected an id, start, end and labels in quotes")
    return [(identity, labels.split(",")) for identity, _, _, labels in lines]


def _marks(path: Path) -> dict[str, str]:
    """Return the display name of each label's mark, in the order of their indices."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = sorted(csv.DictReader(file), key=lambda line: int(line["index"]))
        return {line["mid"]: line["display_name"] for line in lines}
    except (OSError, csv.Error, KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected the columns index, mid, display_name ({error})") from error


def _by_id(folder: Path) -> dict[str, str]:
    """Return the path of each recording by its whole name and by the YouTube id at its start, or after a Y there."""
    paths: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix[1:].lower() in EXTENSIONS["audio"]:
            paths.setdefault(path.stem[:YOUTUBE_ID_LETTERS], str(path))
            if path.stem.startswith("Y"):
                paths.setdefault(path.stem[1 : 1 + YOUTUBE_ID_LETTERS], str(path))
            paths[path.stem] = str(path)
    return paths
