"""The manifest: the shards of a folder, their contents, and the hash that identifies all of it.

A shard folder looks like this; `manifest.json` is written last, so a folder without one is unfinished:

    OUT/manifest.json
    OUT/train/000000.tar   OUT/train/000000.idx
    OUT/test/000000.tar    OUT/test/000000.idx
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from data_shards.files import atomic
from data_shards.files.quoting import cut, listed, shown
from data_shards.files.typed_json import parse_object
from data_shards.format.annotations import OWN, Records
from data_shards.format.shard_table import ShardEntry, Shards

__all__ = ["Manifest", "ShardEntry", "Shards", "Split", "parse", "read", "write"]

T = TypeVar("T")
VERSION = 3
# Tuples and no dict: what was found for a split is kept by these.
Required = tuple[tuple[str, tuple[str, ...]], ...]
"""Inputs by name, each with the patterns of the member that a sample must have."""


@dataclass(frozen=True)
class Split:
    """The shards of one split, in the order that the sample order is computed from."""

    shards: Shards
    label_counts: tuple[int, ...]
    """Samples of each class, in the order of the manifest's label names; empty where there are no labels."""
    required: Required = ()
    """Inputs that all samples have: others are left out, as data.require asks. A manifest requires none."""

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return int(self.shards.num_samples.sum())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, counts and hashes of the shards: the identity that an order and a resume rest on."""
        found = self.shards.fingerprint()
        if not self.required:
            return found
        # Without some of its samples a split has another order, so it must not pass for the whole one at a resume.
        names = sorted(name for name, _ in self.required)
        return hashlib.sha256(f"{found} {names}".encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The contents of a shard folder."""

    splits: dict[str, Split]
    label_names: tuple[str, ...]
    """Class names; the label of a sample is an index into them. Empty where there are no labels."""
    named_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class names of each further label by its name."""
    adopted: bool = False
    """Whether others wrote the tars: what each sample should have is then for `perceiver data verify` to guess."""
    records: Records = OWN
    """The fields that are taken from the samples' records; of others' records, those that the user asked for."""
    tars: str = ""
    """Folder of the tars, where the manifest and the indexes are in one of their own."""
    version: int = VERSION
    values: Mapping[str, int] = field(default_factory=dict)
    """The number of numbers of each value, by its name."""

    def split(self, name: str) -> Split:
        """Return the split of that name; ValueError names the ones there are."""
        if name not in self.splits:
            raise ValueError(f"the manifest has no split {shown(name)}; it has {listed(sorted(self.splits)) or 'none'}")
        return self.splits[name]


def write(manifest: Manifest, folder: Path) -> None:
    """Write `folder/manifest.json`: the folder is complete from then on."""
    splits = {
        name: {
            "label_counts": split.label_counts,
            "fingerprint": split.fingerprint,
            "shards": split.shards.to_columns(),
        }
        for name, split in manifest.splits.items()
    }
    fields = {
        "version": manifest.version,
        "adopted": manifest.adopted,
        "records": asdict(manifest.records),
        "tars": manifest.tars,
        "label_names": manifest.label_names,
        "named_labels": manifest.named_labels,
        "values": manifest.values,
        "splits": splits,
    }
    # Last of all files: readers take a folder for complete as soon as this name is there.
    atomic.write(folder / "manifest.json", _lines(fields) + "\n")


def read(folder: Path) -> Manifest:
    """Return the manifest of a shard folder; ValueError says what is missing or not understood, and the remedy."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; data.shards must name a folder written by `perceiver data build` (a build that was "
            "interrupted resumes when the same command is run again) or adopted by `perceiver data index`"
        )
    return parse(path.read_bytes(), str(path))


def parse(text: str | bytes, path: str) -> Manifest:
    """Return the manifest of that text; ValueError names the path where it is not understood or was changed."""
    try:
        fields = parse_object(text)
        del text  # 17 MB where there are 100 000 shards
        version = fields["version"]
        # Columns of another version may have other names; the message on the version is of more use than a missing key.
        splits = {name: _split(split) for name, split in fields["splits"].items()} if version == VERSION else {}
        labels, adopted = _words(fields["label_names"], str), bool(fields.get("adopted"))
        named = {name: _words(classes, str) for name, classes in fields.get("named_labels", {}).items()}
        values = {str(name): int(count) for name, count in fields.get("values", {}).items()}
        records, tars = _records(fields.get("records"), adopted=adopted), str(fields.get("tars", ""))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a manifest ({cut(repr(error))}); build or index the folder again") from error
    if version != VERSION:
        raise ValueError(
            f"{path}: version {version}, expected {VERSION}; build the shards again with this release, "
            "or train with the one that wrote them"
        )
    return Manifest(splits, labels, named, adopted, records, tars, version, values)


def _records(fields: Mapping[str, Any] | None, *, adopted: bool) -> Records:
    if fields is None and adopted:
        raise ValueError("an earlier release indexed it and took labels and weights of records unasked")
    return Records(**fields) if adopted and fields is not None else OWN


def _split(fields: Mapping[str, Any]) -> Split:
    split = Split(Shards.from_columns(fields["shards"]), _words(fields["label_counts"], int))
    # A manifest that was edited or cut would otherwise give another order under the old name.
    if split.fingerprint != fields["fingerprint"]:
        raise ValueError(f"its shards have the fingerprint {split.fingerprint}, {fields['fingerprint']} was written")
    return split


def _words(values: object, kind: type[T]) -> tuple[T, ...]:
    # type() and not isinstance: true is an int to Python, and would become class 1.
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(f"expected a list of {kind.__name__}, got {cut(repr(values))}")
    return tuple(values)


def _lines(value: object, margin: str = "\n") -> str:
    """Return JSON with a line for each key: json's own indentation gives each element of a list a line."""
    if not isinstance(value, Mapping):
        return json.dumps(value)
    inner = margin + " "
    return (
        "{" + ",".join(f"{inner}{json.dumps(key)}: {_lines(part, inner)}" for key, part in value.items()) + margin + "}"
    )
