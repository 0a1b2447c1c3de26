"""Folders named after the classes of their files, the layout of ImageNet, Kinetics and many other datasets.

FOLDER/SPLIT/CLASS/.../FILE    SPLIT is train, val, valid, validation, dev, test or eval, in any case
FOLDER/CLASS/SPLIT/.../FILE    as ModelNet40 is
FOLDER/CLASS/.../FILE          all of it is the split train
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.building.builder import Tell
from data_shards.building.splits import TRAIN, split_of
from data_shards.files.quoting import counted, cut, listed, shown
from data_shards.modalities.kinds.catalogue import usual_suffixes
from data_shards.sources.parsing.class_names import look_alikes, one_spelling
from data_shards.sources.parsing.folder_files import HIDDEN, file_of, is_hidden, passed_over, suffix_of, walk

Names = tuple[str, ...]
"""The names that lead from the folder to a file or a folder in it."""
LOOSE = "in no folder of a class"
_FIRST_WORD = re.compile(r"\s*([a-z]+)")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file with what its folders say of it."""

    path: str
    label: int
    split: str


@dataclass
class _Walked:
    """The files that lie below a folder."""

    files: list[tuple[str, Names]] = field(default_factory=list)
    """The files of the modality: path and names."""
    passed: Counter[str] = field(default_factory=Counter)
    """The number of other files by suffix."""
    folders: list[Names] = field(default_factory=list)
    """The two uppermost rows of folders."""


def find(folder: Path, modality: str, tell: Tell | None = None) -> tuple[list[Labelled], list[str]]:
    """Return the files of a modality in the order of their paths, and the class names in order.

    Names that are all numbers are in the order of the numbers, others in alphabetical order. Splits and skipped files
    are reported. Raises ValueError for a class folder in which nothing can be read.
    """
    wanted = file_of(modality)
    walked = _walk(folder, modality)
    on_top = _splits_on_top(walked.files, folder)
    placed = [(path, names, place) for path, names in walked.files if (place := _place(names, on_top))]
    if len(placed) < len(walked.files):
        walked.passed[LOOSE] = len(walked.files) - len(placed)
    told = [passed_over(walked.passed, wanted)] if walked.passed else []
    if not placed:
        raise ValueError("; ".join([f"{folder}: no {wanted} in a folder of its class; expected CLASS/FILE", *told]))
    # An empty class would vanish from the class names, and all labels behind it would move by one.
    if unread := _unread(walked, on_top):
        raise ValueError(
            f"{folder}: no {wanted} in {listed(unread)}; convert the files there, or move the folder elsewhere if it "
            f"is no class; {'; '.join(told)}".rstrip("; ")
        )
    spelling = one_spelling(name for *_, (_, name) in placed)
    classes = _in_order(set(spelling.values()), folder)
    if tell:
        told += [*look_alikes(classes), *_deeper(placed, on_top, len(classes))]
        for sentence in [*told, _splits([names for _, names, _ in placed], on_top)]:
            tell(sentence)
    numbers = {name: number for number, name in enumerate(classes)}
    return [Labelled(path, numbers[spelling[name]], split) for path, _, (split, name) in placed], classes


def _walk(folder: Path, modality: str) -> _Walked:
    walked = _Walked()
    for parent, names, files in walk(folder):
        if is_hidden(names):
            walked.passed[HIDDEN] += len(files)
            continue
        # Deeper ones are neither splits nor classes.
        if 0 < len(names) <= 2:
            walked.folders.append(names)
        for name in files:
            if name.startswith("."):
                walked.passed[HIDDEN] += 1
            elif name.rpartition(".")[2].lower() in usual_suffixes(modality):
                walked.files.append((os.path.join(parent, name), (*names, name)))  # noqa: PTH118 - a million of them
            else:
                walked.passed[suffix_of(name)] += 1
    return walked


def _splits_on_top(files: Sequence[tuple[str, Names]], folder: Path) -> frozenset[str]:
    """Return the uppermost folders that are splits with folders of classes; ValueError where it cannot be known."""
    tops = {names[0] for _, names in files if len(names) > 1}
    _refuse_nearly_splits({names[0] for _, names in files if len(names) > 2}, folder)
    splits = {top for top in tops if split_of(top)}
    deep = {names[0] for _, names in files if len(names) > 2} & splits
    if not deep and tops - splits:
        # A train is a vehicle as well; what else has such a name, and no classes in it, is hardly a class.
        if others := sorted(top for top in splits if top.lower() != TRAIN):
            raise ValueError(
                f"{folder}: {listed(others)} would be a split, but has no folders of classes in it; sort its files "
                "into such folders, move it elsewhere, or rename it if it is a class"
            )
        return frozenset()
    within = {names[1] for _, names in files if len(names) > 2 and names[0] in splits}
    if deep and (others := sorted(tops - splits - within)):
        raise ValueError(
            f"{folder}: {listed(sorted(deep))} would be splits, but {listed(others)} beside them are no classes of "
            "theirs; move these elsewhere, or rename the former if they are classes"
        )
    return frozenset(splits)


def _refuse_nearly_splits(with_folders: set[str], folder: Path) -> None:
    """Raise ValueError where folders with folders in them are named as splits are, and something more."""
    # train2017 and val2017, as COCO has them, would otherwise become two classes.
    nearly = {top: word[1] for top in with_folders if (word := _FIRST_WORD.match(top.lower())) and split_of(word[1])}
    if len({split_of(word) for word in nearly.values()}) > 1 and not all(map(split_of, nearly)):
        meant = ", ".join(f"{shown(top)} to {word}" for top, word in sorted(nearly.items()) if not split_of(top))
        raise ValueError(
            f"{folder}: {listed(sorted(nearly))} look like splits, and are no names of splits that are known; rename "
            f"{meant}, or move them into a folder of each class"
        )


def _place(names: Names, on_top: frozenset[str]) -> tuple[str, str] | None:
    """Return split and class of a file, None where it lies in no folder of a class."""
    folder = _split_folder(names, on_top)
    if len(names) - (folder is not None) < 2:
        return None
    return split_of(folder or TRAIN) or TRAIN, names[1] if folder == names[0] else names[0]


def _split_folder(names: Names, on_top: frozenset[str]) -> str | None:
    """Return the folder that says the split of a file, above or below that of its class."""
    if names[0] in on_top:
        return names[0]
    return names[1] if len(names) > 2 and split_of(names[1]) else None


def _unread(walked: _Walked, on_top: frozenset[str]) -> list[str]:
    """Return the folders of a split, a class, or one in the other, in which nothing is read."""
    read = {names[:depth] for _, names in walked.files for depth in (1, 2) if len(names) > depth}
    has_classes_on_top = any(names[0] not in on_top for _, names in walked.files if len(names) > 1)
    found = []
    for names in walked.folders:
        of_split = bool(on_top) and split_of(names[0]) is not None
        is_meant = of_split or (has_classes_on_top if len(names) == 1 else split_of(names[1]) is not None)
        # What is empty above is named once.
        if is_meant and names not in read and (len(names) == 1 or names[:1] in read):
            found.append("/".join(names))
    return found


def _splits(files: Sequence[Names], on_top: frozenset[str]) -> str:
    """Return a sentence on what was taken for a split."""
    counts = Counter(_split_folder(names, on_top) for names in files)
    if not counts.keys() - {None}:
        return f"no folder of a split: all {counted(len(files), 'file is', 'files are')} for training"
    parts = [
        f"{split_of(name or TRAIN)} {counted(count, 'file')} {f'in {listed([name])}' if name else 'elsewhere'}"
        for name, count in sorted(counts.items(), key=lambda item: item[0] or "")
    ]
    return f"splits: {', '.join(parts)}"


def _deeper(
    placed: Sequence[tuple[str, Names, tuple[str, str]]], on_top: frozenset[str], num_classes: int
) -> Iterator[str]:
    """Yield a sentence where files lie deeper than the folder of their class: those may be the classes meant."""
    deep = [
        (names, name) for _, names, (_, name) in placed if len(names) - (_split_folder(names, on_top) is not None) > 2
    ]
    if deep:
        names, name = deep[0]
        alone = "there is one class alone, and " if num_classes == 1 else ""
        yield (
            f"{alone}{counted(len(deep), 'file lies', 'files lie')} deeper than the folder of their class: "
            f"{cut('/'.join(names))} is of class {listed([name])}; where that is not meant, name a folder further down"
        )


def _in_order(classes: set[str], folder: Path) -> list[str]:
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{folder}: the folder {shown(name)} has a name that is not UTF-8; rename it") from error
    # In the order of numbers: as texts, 10 comes before 2, and the folder 10 would be class 2.
    if all(name.isascii() and name.isdecimal() for name in classes):
        return sorted(classes, key=lambda name: (int(name), name))
    return sorted(classes)
