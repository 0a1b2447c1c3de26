"""C4: c4-train.00000-of-01024.json.gz and c4-validation.00000-of-00008.json.gz, JSON lines with a text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Unpack

from data_shards.building.builder import BuildOptions
from data_shards.building.splits import TRAIN
from data_shards.format.manifest import Manifest
from data_shards.sources import text
from data_shards.sources.layouts.layout import Layout
from data_shards.sources.parsing import plain_text
from data_shards.sources.parsing.folder_files import is_hidden, paths_below, split_counts, split_in, tell_passed_over

# A character of UTF-8 has up to four bytes, and a chunk cuts none.
NUM_BYTES = {"help": "Maximum number of bytes in a chunk.", "min": 4}


@dataclass(frozen=True)
class C4(Layout):
    """C4: c4-train.00000-of-01024.json.gz, c4-validation.00000-of-00008.json.gz and so on in FOLDER.

    The texts of a file are cut into chunks one after the other. A file's name says its split. The unpacked files are
    kept in OUT/.build during the build.

    Example: perceiver data build c4 c4/en data/c4
    """

    name: ClassVar[str] = "c4"
    num_bytes: int = field(default=2_048, metadata=NUM_BYTES)

    def build(self, folder: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
        """Build shards of chunks."""
        tell = options.get("tell") or (lambda _: None)
        files: dict[str, list[Path]] = {}
        passed: list[Path] = []
        for path in paths_below(folder):
            if plain_text.content_suffix(path) in text.JSON_LINES and not is_hidden(path.relative_to(folder).parts):
                files.setdefault(split_in(path) or TRAIN, []).append(path)
            else:
                passed.append(path)
        if not files:
            raise ValueError(f"{folder}: no .json.gz file; expected c4-train.00000-of-01024.json.gz and so on")
        tell(split_counts({split: len(paths) for split, paths in files.items()}, "file"))
        tell_passed_over(folder, passed, "file of JSON lines", tell)
        return text.build(files, out, num_bytes=self.num_bytes, **options)
