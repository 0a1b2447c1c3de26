"""What a layout is: the files and names in which a published data set is handed out, and how they become shards."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Unpack

from data_shards.building.builder import BuildOptions, Tell
from data_shards.format.manifest import Manifest
from data_shards.sources.table import Table


class Layout(ABC):
    """A layout. A subclass is a frozen dataclass: its fields are the options of its command, with a help in each.

    Its docstring is what `perceiver data build NAME --help` prints.
    """

    name: ClassVar[str]
    """The name of the command."""

    @abstractmethod
    def build(self, folder: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
        """Build shards from the folder; ValueError names the piece that is missing in it."""


class TableLayout(Layout):
    """A layout whose samples can be listed before any is built."""

    def build(self, folder: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
        """Build shards of the samples that are found."""
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; name the one that holds the data set")
        # All rows before the first shard: what is missing is refused now, and not after an hour of building.
        found = self.read(folder, options.get("tell") or _unheard)
        return found.build(out, found.rows, **options)

    @abstractmethod
    def read(self, folder: Path, tell: Tell) -> Table:
        """Return the samples and their classes; `tell` is given a sentence on everything that is skipped."""


def _unheard(sentence: str) -> None:
    """Take a sentence that nobody asked for."""
