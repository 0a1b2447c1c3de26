"""What the name of a tar member means: its sample's key and its suffix; and which suffixes an input reads."""

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

LABEL = "cls"
"""Member with the label: an integer in ASCII."""
RECORD = "json"
"""Member with the rarely needed rest: {"weight": w, "labels": [...], "named_labels": {"writer": 3}}."""

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_FIELD = re.compile(r"((?:[^/]*\.)?(?:json|npz))[./](.+)", re.DOTALL)


def key_and_extension(name: str) -> tuple[str, str] | None:
    """Split a member's name at the first dot of its basename, as webdataset does; the extension in lower case.

    None for members that webdataset also skips: no dot, a hidden file, or a name such as `__meta__.json`.
    """
    match = _NAME.fullmatch(name)
    if match is None or re.match(r"__[^/]*__($|[/.])", name):
        return None
    # webdataset folds the case of suffixes, too: KEY.JPG and KEY.jpg must be the same member to both programs.
    return match[1], match[2].lower()


def fitting(patterns: Sequence[str], suffixes: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (suffix, field) of what the patterns mean of these suffixes, once each; no field is the whole member."""
    for suffix in sorted(suffixes):
        yield from ((suffix, field) for field in _fields(tuple(patterns), suffix))


@lru_cache(maxsize=4096)  # asked for every member of every sample
def _fields(patterns: tuple[str, ...], suffix: str) -> tuple[str, ...]:
    split = dict.fromkeys(map(suffix_and_field, patterns))
    # fnmatchcase: plain fnmatch folds the case on some systems, and a run would read other members there.
    return tuple(dict.fromkeys(field for pattern, field in split if fnmatchcase(suffix, pattern)))


def suffix_and_field(pattern: str) -> tuple[str, str]:
    """Split a pattern into that of a suffix, in lower case, and a field of the record or archive, "" for all of it."""
    match = _FIELD.fullmatch(pattern)

    return (match[1].lower(), match[2]) if match else (pattern.lower(), "")


def pattern_problem(pattern: str) -> str | None:
    """Return what is wrong with the pattern of a member, if anything is."""
    if not pattern or pattern.startswith(".") or "/" in suffix_and_field(pattern)[0]:
        return f"{pattern!r} is no suffix; write what follows the first dot of a member's name, such as jpg or left.jpg"
    return None
