"""KITTI's optical flow (2015, 2012): training/image_2/000000_10.png and _11.png, training/flow_occ/000000_10.png."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Row
from data_shards.files.quoting import counted
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing.folder_files import paths_below, seen_below, tell_passed_over
from data_shards.sources.parsing.pairs import pair
from data_shards.sources.table import Table

FRAMES = ("image_2", "colored_0", "image_0")
"""The folder of the left camera's frames: in 2015; in 2012 in colour, and in grey."""
# Of a scene's frames, of which the multi-view release has more, these two have a motion.
FIRST, SECOND = "_10.png", "_11.png"


@dataclass(frozen=True)
class Kitti(TableLayout):
    """KITTI flow (2015 or 2012): training/image_2/000000_10.png, _11.png and training/flow_occ/000000_10.png in FOLDER.

    Of 2012 the frames are in colored_0 or image_0. Pixels without a known motion do not count. testing/ has no
    motion and is skipped. All pairs are the split train; --test-share sets some aside.

    Example: perceiver data build kitti data_scene_flow data/kitti
    """

    name: ClassVar[str] = "kitti"
    without_occluded: bool = field(
        default=False, metadata={"help": "Take flow_noc, without the motion of pixels that leave the second frame."}
    )

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each motion."""
        root = folder / "training" if (folder / "training").is_dir() else folder
        flow = root / ("flow_noc" if self.without_occluded else "flow_occ")
        frames = next((root / name for name in FRAMES if (root / name).is_dir()), None)
        if frames is None or not flow.is_dir():
            lacking = flow.name if frames else " or ".join(FRAMES)
            raise ValueError(f"{root}: has no folder {lacking}; name the folder that holds KITTI's training/")
        motions = [path for path in seen_below(flow) if path.name.endswith(FIRST)]
        if not motions:
            raise ValueError(f"{flow}: no NUMBER{FIRST}; unpack the optical flow of KITTI")
        rows: list[Row] = []
        used = set(motions)
        for line, motion in enumerate(motions, start=1):
            first = frames / motion.name
            second = first.with_name(f"{motion.name.removesuffix(FIRST)}{SECOND}")
            rows.append(Row(line, pair(str(first), str(second), str(motion))))
            used |= {first, second}
        tell(f"{counted(len(rows), 'pair')} of {frames.name} with the motion of {flow.name}")
        tell_passed_over(folder, (path for path in paths_below(folder) if path not in used), "pair with motion", tell)
        return Table(rows, [])
