"""Wikipedia as WikiExtractor writes it: AA/wiki_00 and so on, of <doc ...> ... </doc> or of JSON lines."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Unpack

from data_shards.building.builder import BuildOptions
from data_shards.building.splits import TRAIN
from data_shards.files.quoting import counted
from data_shards.format.manifest import Manifest
from data_shards.sources import text
from data_shards.sources.layouts.c4 import NUM_BYTES
from data_shards.sources.layouts.layout import Layout
from data_shards.sources.parsing.folder_files import paths_below, tell_passed_over

# By their names alone: most of WikiExtractor's files have no suffix that would tell.
_NAME = re.compile(r"wiki_\d+(\.(gz|bz2|xz|json))*")


@dataclass(frozen=True)
class Wikipedia(Layout):
    """Wikipedia as WikiExtractor writes it: AA/wiki_00, AA/wiki_01 and so on in FOLDER, with or without --json.

    The texts of a file are cut into chunks one after the other. There are no splits; --test-share sets chunks aside.

    Example: perceiver data build wikipedia extracted data/wikipedia --test-share 0.01
    """

    name: ClassVar[str] = "wikipedia"
    num_bytes: int = field(default=2_048, metadata=NUM_BYTES)

    def build(self, folder: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
        """Build shards of chunks."""
        tell = options.get("tell") or (lambda _: None)
        paths = list(paths_below(folder))
        files = [path for path in paths if _NAME.fullmatch(path.name)]
        if not files:
            raise ValueError(f"{folder}: no file wiki_NUMBER; name the folder that WikiExtractor wrote")
        tell(counted(len(files), "file"))
        tell_passed_over(folder, (path for path in paths if not _NAME.fullmatch(path.name)), "file wiki_NUMBER", tell)
        return text.build_documents({TRAIN: files}, out, num_bytes=self.num_bytes, **options)
