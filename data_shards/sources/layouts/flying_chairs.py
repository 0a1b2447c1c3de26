"""FlyingChairs: data/00001_img1.ppm, data/00001_img2.ppm, data/00001_flow.flo, and a list of 1 and 2 for the splits."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Row
from data_shards.building.splits import TRAIN
from data_shards.files.quoting import counted, shown
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing import plain_text
from data_shards.sources.parsing.folder_files import paths_below, seen_below, split_counts, tell_passed_over
from data_shards.sources.parsing.pairs import pair
from data_shards.sources.table import Table

MOTION, FIRST, SECOND = "_flow.flo", "_img1.ppm", "_img2.ppm"
LISTS = ("FlyingChairs_train_val.txt", "chairs_split.txt")
SPLITS = {"1": TRAIN, "2": "val"}


@dataclass(frozen=True)
class FlyingChairs(TableLayout):
    """FlyingChairs: data/00001_img1.ppm, _img2.ppm, _flow.flo, and FlyingChairs_train_val.txt in FOLDER.

    The list has a 1 (train) or 2 (val) for each pair. Without it all pairs are for training.

    Example: perceiver data build flying-chairs FlyingChairs_release data/chairs
    """

    name: ClassVar[str] = "flying-chairs"

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each motion, in the order of the names."""
        paths = list(paths_below(folder))
        motions = [path for path in seen_below(folder) if path.name.endswith(MOTION)]
        if not motions:
            raise ValueError(f"{folder}: no file NUMBER{MOTION}; name the folder FlyingChairs_release")
        splits = _splits([path for path in paths if path.name in LISTS], len(motions), tell)
        rows: list[Row] = []
        used = set(motions) | {path for path in paths if path.name in LISTS}
        # The list counts the pairs by their numbers, which is the order of their names.
        for line, (motion, split) in enumerate(zip(motions, splits, strict=True), start=1):
            stem = motion.name.removesuffix(MOTION)
            frames = [motion.with_name(f"{stem}{end}") for end in (FIRST, SECOND)]
            rows.append(Row(line, pair(str(frames[0]), str(frames[1]), str(motion)), split=split))
            used.update(frames)
        tell(split_counts(Counter(splits), "pair"))
        tell_passed_over(folder, (path for path in paths if path not in used), "pair of FlyingChairs", tell)
        return Table(rows, [])


def _splits(lists: list[Path], count: int, tell: Tell) -> list[str]:
    """Return the split of each pair."""
    if not lists:
        tell(f"no {LISTS[0]}: all {counted(count, 'pair is', 'pairs are')} for training")
        return [TRAIN] * count
    path = lists[0]
    try:
        with plain_text.lines(path, newline=None) as file:
            marks = file.read().split()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    # Marks go by place: with a pair missing, all behind it would be of the wrong split.
    if len(marks) != count:
        raise ValueError(
            f"{path}: is for {counted(len(marks), 'pair')}, and {count} are there; unpack all of FlyingChairs"
        )
    for line, mark in enumerate(marks, start=1):
        if mark not in SPLITS:
            raise ValueError(f"{path}: line {line}: expected 1 (train) or 2 (val), got {shown(mark)}")
    return [SPLITS[mark] for mark in marks]
