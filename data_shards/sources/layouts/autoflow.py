"""AutoFlow: static_40k_png_1_of_4/table_0_batch_0/im0.png, im1.png, forward.flo, and so on for 40 000 pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Row
from data_shards.files.quoting import counted
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing.folder_files import paths_below, tell_passed_over
from data_shards.sources.parsing.pairs import pair
from data_shards.sources.table import Table

MOTION, FIRST, SECOND = "forward.flo", "im0.png", "im1.png"


@dataclass(frozen=True)
class AutoFlow(TableLayout):
    """AutoFlow: table_0_batch_0/im0.png, im1.png, forward.flo, in any folders such as static_40k_png_1_of_4 in FOLDER.

    All pairs are for training; --test-share holds some back.

    Example: perceiver data build autoflow AutoFlow data/autoflow
    """

    name: ClassVar[str] = "autoflow"

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each motion whose two frames are there, in the order of the folders."""
        paths = list(paths_below(folder))
        there = set(paths)
        motions = [path for path in paths if path.name == MOTION]
        if not motions:
            raise ValueError(f"{folder}: no file {MOTION}; name the folder that holds static_40k_png_1_of_4 and so on")
        # By the listing and not by asking the disk twice a pair: there are 40 000.
        whole = [path for path in motions if {path.with_name(FIRST), path.with_name(SECOND)} <= there]
        if not whole:
            raise ValueError(f"{motions[0]}: no {FIRST} and {SECOND} beside it; unpack all of AutoFlow")
        if len(whole) < len(motions):
            tell(f"{counted(len(motions) - len(whole), 'motion')} without {FIRST} or {SECOND}: skipped")
        rows, used = [], set(motions)
        for line, path in enumerate(whole, start=1):
            frames = [path.with_name(name) for name in (FIRST, SECOND)]
            used.update(frames)
            rows.append(Row(line, pair(str(frames[0]), str(frames[1]), str(path))))
        tell(counted(len(rows), "pair"))
        tell_passed_over(folder, (path for path in paths if path not in used), "pair of AutoFlow", tell)
        return Table(rows, [])
