"""Recordings: one folder per class, or one folder and AudioSet's CSV files with several labels per recording."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from data_shards.building.builder import BuildOptions, Tell, build_table
from data_shards.building.raw_sample import File, Row
from data_shards.files.quoting import MAX_SHOWN, shown
from data_shards.format.manifest import Manifest
from data_shards.modalities.catalogue import usual_suffixes
from data_shards.sources import class_folders
from data_shards.sources.parsing import plain_text
from data_shards.sources.parsing.folder_files import HIDDEN, file_of, is_hidden, passed_over, suffix_of, walk

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
        files, names = class_folders.find(folder, "audio", options.get("tell"))
        rows = [Row(line, (File(file.path),), file.label, split=file.split) for line, file in enumerate(files)]
    else:
        rows, names = read_segments(folder, segments, classes, options.get("tell"))
    return build_table(rows, out, label_names=names, **options)


def read_segments(
    folder: Path, segments: Mapping[str, Path], classes: Path | None, tell: Tell | None = None
) -> tuple[list[Row], list[str]]:
    """Return a row for each line of the lists, numbered through all of them, and the class names."""
    listed = [(split, cells) for split, path in segments.items() for cells in _segments(path)]
    marks = _marks(classes) if classes else {mark: mark for mark in sorted({m for _, (_, ms) in listed for m in ms})}
    numbers = {mark: number for number, mark in enumerate(marks)}
    files = _by_id(folder, tell)
    rows = []
    for line, (split, (identity, labels)) in enumerate(listed):
        unknown = [label for label in labels if label not in numbers]
        if unknown:
            raise ValueError(f"{classes}: has no class {shown(unknown[0])}, which {identity[:MAX_SHOWN]} has")
        # One that is not there gets a path all the same: reading it fails, and it is counted and listed as any bad row.
        path = files.get(identity, str(folder / f"{identity}.wav"))
        rows.append(Row(line, (File(path),), labels=tuple(numbers[label] for label in labels), split=split))
    return rows, list(marks.values())


def _segments(path: Path) -> list[tuple[str, list[str]]]:
    """Return (YouTube id, labels) of each line of one of AudioSet's lists."""
    lines = [line for line in _csv(path) if line and not line[0].startswith("#")]
    for line in lines:
        if len(line) != 4:
            raise ValueError(f"{path}: {shown(','.join(line))}: expected an id, start, end and labels in quotes")
    return [(identity, labels.split(",")) for identity, _, _, labels in lines]


def _csv(path: Path) -> list[list[str]]:
    try:
        with plain_text.lines(path, newline="") as file:
            # AudioSet's lists have a blank after each comma, before the quotes too.
            return list(csv.reader(file, skipinitialspace=True))
    except (OSError, csv.Error, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


def _marks(path: Path) -> dict[str, str]:
    """Return the display name of each label's mark, in the order of their indices."""
    columns, *lines = _csv(path) or [[]]
    try:
        rows = sorted(
            (dict(zip(columns, line, strict=True)) for line in lines if line), key=lambda row: int(row["index"])
        )
        return {row["mid"]: row["display_name"] for row in rows}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected the columns index, mid, display_name ({error})") from error


def _by_id(folder: Path, tell: Tell | None) -> dict[str, str]:
    """Return the path of each recording by its whole name and by the YouTube id at its start, or after a Y there."""
    paths: dict[str, str] = {}
    passed: Counter[str] = Counter()
    for parent, names, files in walk(folder):
        for path in (Path(parent, name) for name in files):
            if is_hidden((*names, path.name)):
                passed[HIDDEN] += 1
            elif path.suffix[1:].lower() not in usual_suffixes("audio"):
                passed[suffix_of(path.name)] += 1
            else:
                # A name has times after the id, and some have a Y before it. A whole name wins over part of another.
                paths.setdefault(path.stem[:YOUTUBE_ID_LETTERS], str(path))
                if path.stem.startswith("Y"):
                    paths.setdefault(path.stem[1 : 1 + YOUTUBE_ID_LETTERS], str(path))
                paths[path.stem] = str(path)
    if tell and passed:
        tell(f"{folder}: {passed_over(passed, file_of('audio'))}")
    return paths
