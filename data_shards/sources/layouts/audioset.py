"""AudioSet: its lists of segments, the names of its classes, and clips with sound and pictures under YouTube's ids."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Content, File, Row
from data_shards.building.splits import TEST, TRAIN
from data_shards.files.quoting import counted
from data_shards.modalities.kinds.catalogue import usual_suffixes
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing import clips
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

LISTS, CLASSES = "_segments.csv", "class_labels_indices.csv"
Segment = tuple[str, str, list[str]]
"""Split, YouTube id and labels."""


@dataclass(frozen=True)
class AudioSet(TableLayout):
    """AudioSet: eval_segments.csv, (un)balanced_train_segments.csv, class_labels_indices.csv and the clips in FOLDER.

    A clip has the 10 seconds of a segment, and its name begins with the YouTube id: audio/YTID_30.000.flac,
    video/YTID.mp4. Sound and pictures of an id become one sample; where there is no sound file, the sound is taken from
    the video. A sample has all labels of its segment (data.multi_label). The evaluation segments are the split test.

    Example: perceiver data build audioset AudioSet data/audioset
    """

    name: ClassVar[str] = "audioset"
    audio: bool = field(default=True, metadata={"help": "Take the sound."})
    video: bool = field(default=True, metadata={"help": "Take the pictures."})

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each segment of which there is a clip."""
        if not (self.audio or self.video):
            raise ValueError("--no-audio and --no-video leave nothing; leave one of them out")
        paths = list(paths_below(folder))
        files = {
            kind: [path for path in paths if _is_clip(path.relative_to(folder), kind)] for kind in ("audio", "video")
        }
        # Of a hidden one, ._eval_segments.csv, another system made the name.
        lists = [path for path in paths if path.name.endswith(LISTS) and not is_hidden(path.relative_to(folder).parts)]
        listed = [
            (TEST if path.name.startswith("eval") else TRAIN, *segment)
            for path in lists
            for segment in clips.segments(path)
        ]
        if not listed:
            raise ValueError(f"{folder}: no list of segments; add eval{LISTS} and balanced_train{LISTS}")
        passed: Counter[str] = Counter()
        num_listed = len(listed)
        # A copy of a list would count its segments twice.
        passed.update({"listed before": num_listed - len(once := {str(segment): segment for segment in listed})})
        listed = list(once.values())
        marks = _marks(folder, paths, listed)
        found = {kind: clips.by_id(of) for kind, of in files.items()}
        clip_of: list[tuple[Segment, tuple[Content, ...]]] = []
        for segment in listed:
            members = self._members(found["audio"].get(segment[1]), found["video"].get(segment[1]))
            # YouTube has lost many clips since the lists were made.
            if members:
                clip_of.append((segment, members))
            else:
                passed["without a clip"] += 1
        table = _labelled(clip_of, marks, passed, tell)
        if not table.rows:
            raise ValueError(
                f"{folder}: no clip of the {counted(len(listed), 'segment')} in its lists; name clips YTID_START.wav"
            )
        counts = Counter(row.split for row in table.rows)
        tell(split_counts(counts, "segment"))
        if passed := +passed:
            tell(passed_over(passed, f"sample of the {counted(num_listed, 'segment')}"))
        tell_shared((Path(segment.members[0].origin) for segment in table.rows), "clip", tell)
        known = {*lists, *files["audio"], *files["video"], *(path for path in paths if path.name == CLASSES)}
        tell_passed_over(folder, (path for path in paths if path not in known), "clip or list", tell)
        listed_ids = {segment[1] for segment in listed}
        unlisted = {path for of in found.values() for path in of.values()} - {
            of[each] for of in found.values() for each in listed_ids if each in of
        }
        tell_passed_over(folder, sorted(unlisted), "clip of a segment in the lists", tell)
        return table

    def _members(self, sound: Path | None, clip: Path | None) -> tuple[Content, ...]:
        """Return the sound and the pictures of a segment, as far as they are there and asked for."""
        members: list[Content] = []
        if self.audio and (sound or clip):
            members.append(File(str(sound)) if sound else Soundtrack(str(clip)))
        if self.video and clip:
            members.append(File(str(clip)))
        return tuple(members)


def _is_clip(names: Path, kind: str) -> bool:
    return names.suffix[1:].lower() in usual_suffixes(kind) and not is_hidden(names.parts)


def _marks(folder: Path, paths: Sequence[Path], listed: Sequence[Segment]) -> Mapping[str, str]:
    """Return the name of each class by its mark; ValueError where a segment has one that is not listed."""
    lists = [path for path in paths if path.name == CLASSES and not is_hidden(path.relative_to(folder).parts)]
    if not lists:
        raise ValueError(f"{folder}: no {CLASSES}, which names and numbers the classes; add AudioSet's")
    path, *others = lists
    marks = clips.marks(path)
    for other in others:
        # Their order numbers them.
        if list(clips.marks(other).items()) != list(marks.items()):
            raise ValueError(f"{path} and {other} name or number the classes otherwise; remove one of them")
    for _, identity, labels in listed:
        # Cut in the message: what files hold may have any length.
        if unknown := [label for label in labels if label not in marks]:
            raise ValueError(f"{path}: has no class {unknown[0][:40]!r}, which {identity[:40]!r} has")
    return marks


def _labelled(
    clip_of: Sequence[tuple[Segment, tuple[Content, ...]]],
    marks: Mapping[str, str],
    passed: Counter[str],
    tell: Tell,
) -> Table:
    """Return the rows with the classes that training has, in the order of their list."""
    # In a class without training clips nothing can be learned; the rest keeps the order of the list.
    trained = {label for (split, _, labels), _ in clip_of if split == TRAIN for label in labels}
    classes = [mark for mark in marks if mark in trained]
    if len(classes) < len(marks):
        tell(f"{len(marks) - len(classes)} of {len(marks)} classes have no training clip and are left out")
    numbers = {mark: number for number, mark in enumerate(classes)}
    rows: list[Row] = []
    for (split, _, labels), members in clip_of:
        own = tuple(numbers[label] for label in labels if label in numbers)
        if own:
            rows.append(Row(len(rows), members, labels=own, split=split))
        else:
            passed["of classes without training clips"] += 1
    return Table(rows, [marks[mark] for mark in classes])
