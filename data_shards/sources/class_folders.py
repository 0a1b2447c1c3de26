"""Folders whose names are the classes of the files in them, as ImageNet, Kinetics and many others are laid out.

FOLDER/SPLIT/CLASS/.../FILE    SPLIT is train, val, validation, valid, test or eval
FOLDER/CLASS/SPLIT/.../FILE    as ModelNet40 is
FOLDER/CLASS/.../FILE          all of it is the split train
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_shards.members import EXTENSIONS

SPLITS = ("train", "val", "validation", "valid", "test", "eval")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file with what its folders say of it."""

    path: str
    label: int
    split: str


def find(folder: Path, modality: str) -> tuple[list[Labelled], list[str]]:
    """Return the files of a modality in the order of their paths, and the class names in alphabetical order."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found = [(path, *_split_and_class(parts)) for path, parts in _walk(folder, modality) if len(parts) > 1]
    if not found:
        kinds = ", ".join(EXTENSIONS[modality])
        raise ValueError(f"{folder}: no {modality} file ({kinds}) in a folder of its class; expected CLASS/FILE")
    names = sorted({name for _, _, name in found})
    numbers = {name: number for number, name in enumerate(names)}
    return [Labelled(path, numbers[name], split) for path, split, name in found], names


def _walk(folder: Path, modality: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the path of each file of the modality, and its parts below the folder."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        below = Path(parent).relative_to(folder).parts
        for name in sorted(files):
            if name.rpartition(".")[2].lower() in EXTENSIONS[modality] and not name.startswith("."):
                yield os.path.join(parent, name), (*below, name)  # noqa: PTH118 - a million of them


def _split_and_class(parts: tuple[str, ...]) -> tuple[str, str]:
    first, second = parts[0], parts[1]
    if first in SPLITS and len(parts) > 2:
        return first, second
    if second in SPLITS and len(parts) > 2:
        return second, first
    return "train", first
