"""Class names as people write them: which mean one class, and which only look alike."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from unicodedata import category, normalize

from data_shards.files.quoting import shown

_GAPS = frozenset({"none", "null", "nil", "na", "n/a", "#n/a", "nat", "-", "--", "?", "missing", "undefined"})


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Return for each name the one that is used: macOS writes an accent behind its letter, others in one with it."""
    groups: dict[str, list[str]] = defaultdict(list)
    # Sorted, so that of two spellings the same one is used whatever order the folders come in.
    for name in sorted(set(names)):
        groups[normalize("NFC", name)].append(name)
    return {name: alike[0] for alike in groups.values() for name in alike}


def distinct(names: Sequence[str], marks: Iterable[str]) -> list[str]:
    """Return the names with the mark of its class behind each that several have: ImageNet has two of "crane"."""
    counts = Counter(names)
    return [f"{name} ({mark})" if counts[name] > 1 else name for name, mark in zip(names, marks, strict=True)]


def look_alikes(names: Iterable[str]) -> list[str]:
    """Return a sentence for each names of classes that a person would take for one."""
    return [
        f"the classes {' and '.join(map(shown, alike))} look alike; write them in one way if they are one class"
        for alike in _alike(names)
    ]


def gaps(names: Iterable[str]) -> list[str]:
    """Return a sentence for the classes whose names are how other programs write an empty cell."""
    found = [name for name in names if name.strip().casefold() in _GAPS]
    if not found:
        return []
    return [
        f"{' and '.join(map(shown, found))} {'is a class' if len(found) == 1 else 'are classes'}; where it means that "
        "there is no label, leave the cell empty"
    ]


def _alike(names: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_bare(name)].append(name)
    return [alike for alike in groups.values() if len(alike) > 1]


def _bare(name: str) -> str:
    """Return the name without case, blanks and characters that cannot be seen; a number without zeros before it."""
    letters = (letter for letter in normalize("NFKC", name).casefold() if category(letter) not in ("Cf", "Cc", "Zs"))
    bare = "".join(letters)
    return (bare.lstrip("0") or "0") if bare.isascii() and bare.isdecimal() else bare
