"""The manifest: which shards a folder holds, what is in them, and the hash that names all of it.

A shard folder looks like this; `manifest.json` is written last, so a folder without one is unfinished:

    OUT/manifest.json
    OUT/train/000000.tar   OUT/train/000000.idx
    OUT/test/000000.tar    OUT/test/000000.idx
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

VERSION = 1
MODALITIES = ("audio", "image", "points", "text", "video")


@dataclass(frozen=True)
class ShardEntry:
    """One tar file of a split."""

    name: str
    """Path relative to the folder of the manifest, such as "train/000000.tar"."""
    num_samples: int
    """Samples in the tar; every file of a sample shares its key."""
    num_bytes: int
    """Size of the tar file."""
    sha256: str
    """Of the tar file, hexadecimal."""
    index_sha256: str
    """Of the index file beside it, hexadecimal."""
    modalities: dict[str, int]
    """Samples that have each modality."""


@dataclass(frozen=True)
class Split:
    """The shards of one split, in the order that the sample order is computed from."""

    shards: tuple[ShardEntry, ...]
    label_counts: tuple[int, ...]
    """Samples of each class, in the order of the manifest's label names; empty where there are no labels."""

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, counts and hashes of the shards: the identity that an order and a resume rest on."""
        rows = (f"{shard.sha256} {shard.num_samples} {shard.num_bytes} {shard.name}\n" for shard in self.shards)
        return hashlib.sha256("".join(rows).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a shard folder holds."""

    splits: dict[str, Split]
    label_names: tuple[str, ...]
    """Class names; the label of a sample is an index into them. Empty where there are no labels."""
    version: int = VERSION

    def split(self, name: str) -> Split:
        """Return the split of that name; ValueError names the ones there are."""
        if name not in self.splits:
            raise ValueError(f"the manifest has no split {name!r}; it has {', '.join(sorted(self.splits)) or 'none'}")
        return self.splits[name]


def write(manifest: Manifest, folder: Path) -> None:
    """Write `folder/manifest.json` beside its name and rename it: the folder is complete from then on."""
    path = folder / "manifest.json"
    beside = folder / f".manifest.json.{os.getpid()}"
    with beside.open("w") as file:
        json.dump(asdict(manifest), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read(folder: Path) -> Manifest:
    """Return the manifest of a shard folder; ValueError says what is missing or not understood, and the remedy."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; data.shards must name a folder written by `perceiver data build` (a build that was "
            "interrupted goes on when the same command is run again) or adopted by `perceiver data index`"
        )
    return parse(path.read_text(), str(path))


def parse(text: str, path: str) -> Manifest:
    """Return the manifest of that text; ValueError names the path where it is not understood."""
    try:
        fields = json.loads(text)
        version = fields["version"]
        if version != VERSION:
            raise ValueError(
                f"{path}: version {version}, expected {VERSION}; build the shards again with this release, "
                "or train with the one that wrote them"
            )
        splits = {
            name: Split(tuple(ShardEntry(**shard) for shard in split["shards"]), tuple(split["label_counts"]))
            for name, split in fields["splits"].items()
        }
        return Manifest(splits, tuple(fields["label_names"]), version)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a manifest ({error!r}); build or index the folder again") from error
