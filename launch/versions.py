"""The supported versions, checked before any import that would take time or fail.

Python 3.7 and newer can read this file, so an old one gets the message too: no newer syntax here.
"""

from __future__ import annotations

import re
import sys

# From the first that will do to the first that will not; pyproject.toml has the same.
PYTHON = ((3, 11), (3, 14))
# Of DeepSpeed one release: 0.18.9 and 0.19.0 to 0.19.7, as far as they were tried, apply a NaN gradient at ZeRO 1 and
# 2, and trainer/optim/partitions.py knows where this one keeps its tensors.
PACKAGES = {"torch": ((2, 9), (2, 14)), "deepspeed": ((0, 19, 8), (0, 20))}
_REMEDY = 'docs/cluster.md says under "Versions" which were tried'


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> None:
    """Raise ValueError where Python is one that this release does not run with."""
    if not _is_within(version, *PYTHON):
        found = ".".join(map(str, version))
        raise ValueError(f"{_sentence('Python', found, *PYTHON)}: take another environment or container; {_REMEDY}")


def check_packages() -> None:
    """Raise ValueError with every installed package that this release does not run with.

    Names and versions are read, nothing is imported. A missing package is reported by the module that needs it.
    """
    from importlib.metadata import PackageNotFoundError, version

    problems = []
    for name, accepted in PACKAGES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if not _is_within(numbers(found), *accepted):
            problems.append(_sentence(name, found, *accepted))
    if problems:
        raise ValueError(f"{' and '.join(problems)}: install others; {_REMEDY}")


def sentence() -> str:
    """Return the versions of this product and of what decides its numbers; nothing is imported for it."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("perceiver-trainer", *PACKAGES):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join([*found, f"Python {'.'.join(map(str, sys.version_info[:3]))}"])


def numbers(version: str) -> tuple[int, ...]:
    """Return the release's numbers: (2, 9, 0) of "2.9.0a0+145a3a7bda.nv25.10"."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", re.split(r"[^0-9.]", version, maxsplit=1)[0]))


def _is_within(found: tuple[int, ...], first: tuple[int, ...], beyond: tuple[int, ...]) -> bool:
    return first <= found < beyond


def _sentence(name: str, found: str, first: tuple[int, ...], beyond: tuple[int, ...]) -> str:
    last = ".".join(map(str, (*beyond[:-1], beyond[-1] - 1)))
    return f"{name} is {found}, but this release runs with {'.'.join(map(str, first))} to {last}.*"
