"""The files below a folder, with links followed, and a sentence about skipped files."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from data_shards.building.splits import split_of
from data_shards.files.quoting import counted
from data_shards.modalities.kinds.catalogue import usual_suffixes

HIDDEN = "hidden"
"""The kind under which hidden files, and all that lies in hidden folders, are counted."""
_OF_SYSTEMS = ("__MACOSX", "@eaDir")
"""Folders that other systems leave behind."""
_MAX_KINDS = 10
_MAX_SUFFIX_LETTERS = 20


def walk(folder: Path) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Yield each folder from `folder` down: its path, the names that lead to it, and the names of its files, sorted.

    A link is followed, one that leads back to a folder above it is refused, and so is a folder that cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    above: dict[str, tuple[str, ...]] = {str(folder): (os.path.realpath(folder),)}
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        # In place: os.walk goes down in this order, which is otherwise that of the disk and differs between machines.
        folders.sort()
        reals = above.pop(parent)
        for name in folders:
            path = os.path.join(parent, name)  # noqa: PTH118 - a million of them
            # A link alone can lead back, and resolving a path costs a call for each of its folders.
            real = os.path.realpath(path) if os.path.islink(path) else f"{reals[-1]}/{name}"  # noqa: PTH114
            if any(f"{each}/".startswith(f"{real}/") for each in reals):
                raise ValueError(f"{path}: is a link to a folder that it lies in; remove it")
            above[path] = (*reals, real)
        yield parent, Path(parent).relative_to(folder).parts, tuple(sorted(files))


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from error


def is_hidden(names: Iterable[str]) -> bool:
    """Return whether one of the names is that of a hidden file or folder, or of another system's."""
    return any(name.startswith(".") or name in _OF_SYSTEMS for name in names)


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name as it is counted: in lower case, with its dot."""
    suffix = Path(name).suffix.lower()
    if not suffix:
        return "without a suffix"
    return suffix if len(suffix) <= _MAX_SUFFIX_LETTERS and suffix.isprintable() else "of an odd suffix"


def file_of(modality: str) -> str:
    """Return what a file of the modality is called in a message, with the suffixes that are read."""
    return f"{modality} file ({', '.join(usual_suffixes(modality))})"


def passed_over(counts: Mapping[str, int], wanted: str) -> str:
    """Return a sentence on the files that were skipped, by suffix; `wanted` says what is read."""
    found = Counter(counts).most_common()
    parts = [f"{count} {kind}" for kind, count in found[:_MAX_KINDS]]
    if more := found[_MAX_KINDS:]:
        parts.append(f"{sum(count for _, count in more)} of {counted(len(more), 'more kind')}")
    return f"skipped, no {wanted}: {', '.join(parts)}"


def split_counts(counts: Mapping[str, int], noun: str) -> str:
    """Return a sentence on how many of something each split has."""
    return f"splits: {', '.join(f'{split} {counted(count, noun)}' for split, count in sorted(counts.items()))}"


def paths_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, hidden ones too, in the order of their folders and names."""
    for parent, _, files in walk(folder):
        yield from (Path(parent, name) for name in files)


def seen_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden: another system leaves a ._NAME beside every NAME."""
    return (path for path in paths_below(folder) if not is_hidden(path.relative_to(folder).parts))


def tell_passed_over(folder: Path, paths: Iterable[Path], wanted: str, tell: Callable[[str], None]) -> None:
    """Tell how many of these files of the folder are skipped, by suffix."""
    counts = Counter(HIDDEN if is_hidden(path.relative_to(folder).parts) else suffix_of(path.name) for path in paths)
    if counts:
        tell(f"{folder}: {passed_over(counts, wanted)}")


def tell_shared(paths: Iterable[Path], noun: str, tell: Callable[[str], None]) -> None:
    """Tell how many files are more than one sample, as where two lists name one file with other classes or splits."""
    if shared := {path: count for path, count in Counter(paths).items() if count > 1}:
        path, count = next(iter(shared.items()))
        tell(f"{counted(len(shared), noun)} in several samples, of other classes or splits: {path} in {count}")


def split_in(path: Path) -> str | None:
    """Return the split that a word of a file's name means, None where there is none; ValueError where there are two."""
    # By whole words: there is a test in "contest".
    found = sorted({split for word in re.findall("[a-z]+", path.stem.lower()) if (split := split_of(word))})
    if len(found) > 1:
        raise ValueError(f"{path}: names the splits {' and '.join(found)}; rename it, so that it says one")
    return found[0] if found else None
