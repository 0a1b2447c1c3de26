"""Kinetics: lists with label, youtube_id, time_start, time_end, split, and videos named YTID_000000_000010.mp4."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Content, File, Row
from data_shards.building.splits import TRAIN, split_of
from data_shards.files.quoting import counted, shown
from data_shards.modalities.kinds.catalogue import usual_suffixes
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing import cells, clips
from data_shards.sources.parsing.folder_files import (
    is_hidden,
    passed_over,
    paths_below,
    split_counts,
    tell_passed_over,
    tell_shared,
)
from data_shards.sources.table import Table
from data_shards.sources.videos import Soundtrack

COLUMNS = ("youtube_id", "time_start", "time_end", "split")
SPLITS = {"validate": "val", "validation": "val"}
"""What some lists call the split val."""
# Leading zeros or none, and seconds with a fraction: several tools cut these clips.
_SECONDS = re.compile(r"_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Kinetics(TableLayout):
    """Kinetics-400, -600, -700 and -700-2020: lists (train.csv, val.csv) and YTID_000000_000010.mp4 in FOLDER.

    A list has the columns label, youtube_id, time_start, time_end and split. The videos may lie in any folders, such as
    train/CLASS. Clips without a label, as in the test list of some versions, and listed clips without a video are
    skipped and counted. The sound becomes a member of its own.

    Example: perceiver data build kinetics k700-2020 data/kinetics
    """

    name: ClassVar[str] = "kinetics"
    audio: bool = field(default=True, metadata={"help": "Take the sound too."})

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each listed clip that has a label and a video."""
        paths = list(paths_below(folder))
        lists = [path for path in paths if path.suffix == ".csv" and not is_hidden(path.relative_to(folder).parts)]
        rows_of = {path: list(_listed(path)) for path in lists}
        listed = [row for rows in rows_of.values() for row in rows]
        if not listed:
            raise ValueError(
                f"{folder}: no .csv list with {', '.join(COLUMNS)}; add Kinetics' train.csv and val.csv, or build "
                "folders of classes with `perceiver data build videos`"
            )
        files = [path for path in paths if _is_video(path.relative_to(folder))]
        found = clips.by_id(files)
        passed: Counter[str] = Counter()
        clip_of: list[tuple[str, str, Path]] = []
        used = {path for path, rows in rows_of.items() if rows}
        for row in listed:
            path = _clip(found, row)
            used |= {path} if path else set()
            if path is None or "label" not in row:
                passed["without a video" if path is None else "without a label"] += 1
            else:
                clip_of.append((row["split"], str(row["label"]), path))
        # The releases repeat each other: a list of all clips lies beside those of the splits.
        passed.update({"listed before": len(clip_of) - len(once := dict.fromkeys(clip_of))})
        clip_of = list(once)
        table = self._labelled(clip_of, passed)
        if not table.rows:
            raise ValueError(
                f"{folder}: no video of the {counted(len(listed), 'listed clip')}; name videos YTID_000000_000010.mp4"
            )
        counts = Counter(row.split for row in table.rows)
        tell(split_counts(counts, "clip"))
        if passed := +passed:
            tell(passed_over(passed, f"sample of the {counted(len(listed), 'listed clip')}"))
        tell_shared((path for _, _, path in clip_of), "video", tell)
        rest = [path for path in paths if path not in used]
        tell_passed_over(folder, rest, "video of a listed clip", tell)
        return table

    def _labelled(self, clip_of: Sequence[tuple[str, str, Path]], passed: Counter[str]) -> Table:
        """Return the rows with the classes that training has, in alphabetical order."""
        # A user may have fetched the videos of one split alone: then its classes are all that there are.
        learned = {label for split, label, _ in clip_of if split == TRAIN} or {label for _, label, _ in clip_of}
        classes = sorted(learned)
        numbers = {label: number for number, label in enumerate(classes)}
        rows: list[Row] = []
        for split, label, path in clip_of:
            if label in numbers:
                rows.append(Row(len(rows), self._members(path), numbers[label], split=split))
            else:
                passed["of a class without training clips"] += 1
        return Table(rows, classes)

    def _members(self, path: Path) -> tuple[Content, ...]:
        return (File(str(path)), Soundtrack(str(path))) if self.audio else (File(str(path)),)


def _is_video(names: Path) -> bool:
    return names.suffix[1:].lower() in usual_suffixes("video") and not is_hidden(names.parts)


def _listed(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a list; none of a table of another kind."""
    try:
        for line, row in cells.read(path):
            if "youtube_id" not in row:
                return
            yield {**row, "split": _split(row.get("split", path.stem.rpartition("_")[2]), line)}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _split(cell: object, line: int) -> str:
    """Return the split of a line, by its cell or by the name of its list."""
    split = str(cell).strip().lower()
    name = SPLITS.get(split) or split_of(split)
    if name is None:
        raise ValueError(f"line {line}: split {shown(split)} is none of train, val, test")
    return name


def _clip(found: Mapping[str, Path], row: Mapping[str, Any]) -> Path | None:
    """Return the video of a listed clip: that of its seconds, or that of its id, if its name has no other seconds."""
    name, seconds = str(row["youtube_id"]), _seconds(row)
    if seconds is None:
        return found.get(name)
    if path := found.get(f"{name}_{seconds[0]:06d}_{seconds[1]:06d}"):
        return path
    path = found.get(name)
    # Cut at other seconds, it is another clip of the same video: of another class, or of the other split.
    cut = path and path.stem != name and _SECONDS.search(path.stem)
    return None if cut and tuple(int(float(part)) for part in cut.groups()) != seconds else path


def _seconds(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the first and last second of a clip, None where its list has none."""
    try:
        return int(float(row["time_start"])), int(float(row["time_end"]))
    except (KeyError, ValueError, OverflowError):
        return None
