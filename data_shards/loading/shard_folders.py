"""The shard folders of a run. Each is examined once, and other processes receive the result.

    rank 0                         reads the manifest and asks for the size of every shard   -> Found, broadcast
    first rank of another host     check_here(): its folder may be a copy that differs
    all other ranks                ask the disk nothing

Without this, each of 1,024 ranks asks a shared disk for the size of 100 000 shards before its first step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from data_shards.config import DataConfig
from data_shards.format.manifest import Manifest, Required, ShardEntry, Split
from data_shards.format.tar_index import TarIndex
from data_shards.storage.local_folder import LocalFolder, ShardFolder
from data_shards.storage.required_inputs import required


@dataclass(frozen=True)
class Found:
    """The result of the examination of a shard folder."""

    manifest: Manifest
    checked: set[str] = field(default_factory=set)
    """Splits whose shards are what the manifest says."""
    required: dict[tuple[str, Required], Split] = field(default_factory=dict)
    """Splits without the samples that lack a required input, by name and inputs."""


class Place:
    """A shard folder of which is remembered what was found there. It is a ShardFolder too."""

    def __init__(self, location: str, config: DataConfig, found: Found | None = None) -> None:
        self.is_remote = "://" in location
        """Whether its files come over a network, one by one."""
        self._folder = folder(location, config, found.manifest if found else None)
        self.found = found
        """None before the first examination."""

    def __reduce__(self) -> tuple[Callable[[ShardFolder], ShardFolder], tuple[ShardFolder]]:
        # A process that only reads shards needs nothing of what was found.
        return _itself, (self._folder,)

    def __str__(self) -> str:
        return str(self._folder)

    def manifest(self) -> Manifest:
        """Return the manifest; ValueError where there is none."""
        return self._look().manifest

    def check(self, split: Split) -> None:
        """Raise ValueError for the first shard that is not what the manifest says, as far as a glance shows it."""
        self._folder.check(split)

    def served(self, name: str, require: Required) -> Split:
        """Return a split with only the samples that have what is required, its shards checked; ValueError says why not.

        What was checked once, here or by whoever told of it, is not checked again.
        """
        found, split = self._look(), self.manifest().split(name)
        # Once a run and host: checking asks the disk for the size of every shard, 100 000 calls for 100 000 shards.
        if name not in found.checked:
            self.check(split)
            found.checked.add(name)
        if not require:
            return split
        key = name, require
        if key not in found.required:
            found.required[key] = required(self._folder, split, require)
        return found.required[key]

    def index(self, entry: ShardEntry) -> TarIndex:
        """Return the index that the manifest names by its hash; ValueError where it cannot be had."""
        return self._folder.index(entry)

    def open(self, entry: ShardEntry) -> BinaryIO:
        """Return the tar, opened unbuffered."""
        return self._folder.open(entry)

    def name(self, entry: ShardEntry) -> str:
        """Return the name of a shard for messages."""
        return self._folder.name(entry)

    def _look(self) -> Found:
        if self.found is None:
            self.found = Found(self._folder.manifest())
        return self.found


class Places:
    """The shard folders that a configuration names, by location."""

    def __init__(self, config: DataConfig, told: Mapping[str, Found] | None = None) -> None:
        """`told` is what another process found, see `found`."""
        self._config = config
        self._told = told or {}
        # One place a location: training and evaluation of a folder examine it once.
        self._places: dict[str, Place] = {}

    def at(self, location: str) -> Place:
        """Return the shard folder at a path or URL."""
        if location not in self._places:
            self._places[location] = Place(location, self._config, self._told.get(location))
        return self._places[location]

    @property
    def found(self) -> dict[str, Found]:
        """What was found so far, by location; it can be pickled."""
        return {location: place.found for location, place in self._places.items() if place.found}

    def check_here(self) -> None:
        """Check on this host what another host found; ValueError if its folder of that name has other contents."""
        for location, found in self._told.items():
            if "://" in location:
                continue  # the same for all, wherever it is asked for
            here = Places(self._config).at(location)
            if _content(here.manifest()) != _content(found.manifest):
                raise ValueError(
                    f"{location}/manifest.json: this host has other shards there than rank 0's; copy one folder to all "
                    "hosts, or name a folder on a disk that they share"
                )
            for name in sorted(found.checked):
                here.check(here.manifest().split(name))


def folder(location: str, config: DataConfig, known: Manifest | None = None) -> ShardFolder:
    """Return the shard folder at a path or URL, of which the manifest may be known."""
    if "://" in location:
        # Its libraries are a hundred files, which a start from a folder need not open.
        from data_shards.storage.remote_folder import RemoteFolder

        return RemoteFolder(location, config.remote)
    if not location:
        raise ValueError("data.shards is not set; give the folder that `perceiver data build` wrote, data.shards=PATH")
    return LocalFolder(Path(location), known)


def _content(found: Manifest) -> tuple[object, ...]:
    """Return what two folders share that hold the same shards."""
    # Not the whole manifest: where the tars lie may differ from host to host.
    prints = {name: split.fingerprint for name, split in found.splits.items()}
    return prints, found.label_names, dict(found.named_labels), dict(found.values), found.records


def _itself(folder: ShardFolder) -> ShardFolder:
    return folder
