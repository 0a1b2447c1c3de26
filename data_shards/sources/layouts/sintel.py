"""MPI Sintel: training/clean|final/SCENE/frame_0001.png, training/flow/SCENE/frame_0001.flo, training/invalid/..."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Content, File, Row, size_on_disk
from data_shards.building.splits import TRAIN
from data_shards.files.quoting import counted
from data_shards.modalities.decoding.flow import FLO_HEADER_BYTES, motion
from data_shards.modalities.decoding.image import pixels
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing.folder_files import paths_below, seen_below, tell_passed_over
from data_shards.sources.parsing.pairs import pair
from data_shards.sources.table import Table

PASSES = ("clean", "final")
# Above 1e9, from which on the format has motion for unknown.
UNKNOWN = 1e10
"""The number in a .flo file of a motion that is not known."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A .flo file without the motion of the pixels that a mask calls invalid."""

    path: str
    mask: str
    extension: str = "flo"

    @property
    def origin(self) -> str:
        """The path of the motion."""
        return self.path

    @property
    def num_bytes(self) -> int:
        """The size of the motion."""
        return size_on_disk(self.path)

    def read(self) -> bytes:
        """Return the motion as .flo."""
        data = File(self.path).read()
        moved = motion(data)
        try:
            invalid = pixels(File(self.mask).read())[..., 0] > 0
        except (OSError, ValueError) as error:
            raise ValueError(f"its mask {self.mask}: {error}") from error
        if invalid.shape != moved.shape[:2]:
            raise ValueError(f"the mask {self.mask} has {invalid.shape} pixels, the motion {moved.shape[:2]}")
        # What was unknown stays so: NaN, as it is read, would be no number of the format.
        unknown = invalid[..., None] | np.isnan(moved)
        return data[:FLO_HEADER_BYTES] + np.where(unknown, np.float32(UNKNOWN), moved).astype("<f4").tobytes()


@dataclass(frozen=True)
class Sintel(TableLayout):
    """MPI Sintel: training/clean, training/final and training/flow with SCENE/frame_0001.png and .flo in FOLDER.

    The splits are clean and final, for evaluation as in the papers. Motion that training/invalid marks is unknown.
    test/ has no motion and is skipped.

    Example: perceiver data build sintel MPI-Sintel-complete data/sintel
    """

    name: ClassVar[str] = "sintel"
    for_training: bool = field(default=False, metadata={"help": "All pairs of both passes are the split train."})

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each pair of a pass."""
        root = folder / "training" if (folder / "training").is_dir() else folder
        if missing := [name for name in (*PASSES, "flow") if not (root / name).is_dir()]:
            raise ValueError(f"{root}: has no folder {missing[0]}; name the folder that holds Sintel's training/")
        motions = [path for path in seen_below(root / "flow") if path.suffix == ".flo"]
        if not motions:
            raise ValueError(f"{root / 'flow'}: no SCENE/frame_NUMBER.flo; unpack the flow of Sintel")
        rows: list[Row] = []
        used = set(motions)
        for split in PASSES:
            for path in motions:
                frames = _frames(path, root / split)
                used.update(frames)
                # Both passes have the same motion: of the pair without its motion, as the mask goes into that.
                members = pair(str(frames[0]), str(frames[1]), str(path))[:2]
                rows.append(
                    Row(
                        len(rows) + 1,
                        (*members, _motion(path, root, used)),
                        split=TRAIN if self.for_training else split,
                    )
                )
        num_masked = sum(isinstance(row.members[2], Masked) for row in rows)
        each = counted(len(motions), "pair")
        tell(f"{each} in each of {' and '.join(PASSES)}; {num_masked} with a mask of invalid motion")
        tell_passed_over(folder, (path for path in paths_below(folder) if path not in used), "pair with motion", tell)
        return Table(rows, [])


def _frames(motion_path: Path, of_pass: Path) -> tuple[Path, Path]:
    scene, stem = of_pass / motion_path.parent.name, motion_path.stem
    prefix, _, number = stem.rpartition("_")
    if not number.isdecimal():
        raise ValueError(f"{motion_path}: expected frame_NUMBER.flo")
    return scene / f"{stem}.png", scene / f"{prefix}_{int(number) + 1:0{len(number)}d}.png"


def _motion(path: Path, root: Path, used: set[Path]) -> Content:
    mask = root / "invalid" / path.parent.name / f"{path.stem}.png"
    used.add(mask)
    return Masked(str(path), str(mask)) if mask.is_file() else File(str(path))
