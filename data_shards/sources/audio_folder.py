"""Recordings: one folder per class, or one folder and AudioSet's CSV files with several labels per recording."""

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from data_shards.building.builder import BuildOptions, Tell, build_table
from data_shards.building.raw_sample import File, Row
from data_shards.files.quoting import MAX_SHOWN, shown
from data_shards.format.manifest import Manifest
from data_shards.modalities.kinds.catalogue import usual_suffixes
from data_shards.sources import class_folders
from data_shards.sources.parsing import clips
from data_shards.sources.parsing.folder_files import file_of, is_hidden, paths_below, tell_passed_over


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
    # All lists at once: a class that only the test list has is one too.
    listed = [(split, cells) for split, path in segments.items() for cells in clips.segments(path)]
    marks = (
        clips.marks(classes) if classes else {mark: mark for mark in sorted({m for _, (_, ms) in listed for m in ms})}
    )
    # In the order of AudioSet's own indices, where its list is given: others' networks number classes so.
    numbers = {mark: number for number, mark in enumerate(marks)}
    files = _by_id(folder, tell)
    rows = []
    for line, (split, (identity, labels)) in enumerate(listed):
        unknown = [label for label in labels if label not in numbers]
        if unknown:
            raise ValueError(f"{classes}: has no class {shown(unknown[0])}, which {identity[:MAX_SHOWN]} has")
        # One that is not there gets a path all the same: reading it fails, and it is counted and listed as any bad row.
        path = files.get(identity, folder / f"{identity}.wav")
        rows.append(Row(line, (File(str(path)),), labels=tuple(numbers[label] for label in labels), split=split))
    return rows, list(marks.values())


def _by_id(folder: Path, tell: Tell | None) -> dict[str, Path]:
    """Return the path of each recording by its name and by its YouTube id."""
    recordings: list[Path] = []
    passed: list[Path] = []
    for path in paths_below(folder):
        is_read = path.suffix[1:].lower() in usual_suffixes("audio") and not is_hidden(path.relative_to(folder).parts)
        (recordings if is_read else passed).append(path)
    tell_passed_over(folder, passed, file_of("audio"), tell or (lambda _: None))
    return clips.by_id(recordings)
