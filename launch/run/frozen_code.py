"""The copy of the code that a run keeps for all its restarts."""

import filecmp
import shutil
from pathlib import Path

from data_shards.files import atomic

PACKAGES = ("configs", "data_shards", "launch", "model", "perceiver_trainer", "trainer")


def freeze(code_folder: Path, source: Path | None = None) -> None:
    """Copy the packages into `code_folder`, complete or not at all; an existing copy is left as it is."""
    source = source or installed_folder()
    if code_folder.exists():
        return
    beside = code_folder.with_name(f".{code_folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(source / package, beside / package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    atomic.publish(beside, code_folder)


def changed_files(code_folder: Path, source: Path | None = None) -> list[str]:
    """Return the files in which the code that runs now differs from the run's copy, relative and sorted."""
    source = source or installed_folder()
    return sorted(set(_names(source)) ^ set(_names(code_folder))) + [
        name
        for name in sorted(set(_names(source)) & set(_names(code_folder)))
        if not filecmp.cmp(source / name, code_folder / name, shallow=False)
    ]


def installed_folder() -> Path:
    """Return the folder that holds the packages which are running."""
    return Path(__file__).resolve().parents[2]


def _names(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for package in PACKAGES
        for path in (folder / package).rglob("*")
        if path.suffix in {".py", ".yaml"}
    ]
