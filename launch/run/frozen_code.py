"""The copy of the code that a run keeps for all its restarts.

Slurm starts a run long after it was submitted, and again after each preemption. By then the checkout may have changed.
"""

import filecmp
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from configs.plugins import FROZEN
from configs.run import RunConfig
from data_shards.files import atomic, typed_json
from launch.lifecycle.run_folder import RunFolder

PACKAGES = ("configs", "data_shards", "launch", "model", "perceiver_trainer", "trainer")
PLUGINS = Path(FROZEN).name
"""The folder of a run's plug-ins within its code."""


def copy_code(code_folder: Path, source: Path | None = None, *, plugins: Sequence[str] = ()) -> None:
    """Copy the packages and plug-ins into a folder that is not there yet; who publishes the run makes it durable."""
    source = source or installed_folder()
    # Whole packages, as what a plug-in imports of them is not known.
    for package in PACKAGES:
        shutil.copytree(source / package, code_folder / package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    if plugins:
        (code_folder / PLUGINS).mkdir()
    for path in plugins:
        shutil.copy(path, code_folder / PLUGINS)


def freeze(code_folder: Path, source: Path | None = None, *, plugins: Sequence[str] = ()) -> None:
    """Make a durable copy, complete or not at all; an existing one is left as it is."""
    if code_folder.exists():
        return
    beside = code_folder.with_name(f".{code_folder.name}.partial")
    # Of a start that was killed while it copied.
    shutil.rmtree(beside, ignore_errors=True)
    copy_code(beside, source, plugins=plugins)
    atomic.publish(beside, code_folder)


def as_frozen(config: RunConfig) -> RunConfig:
    """Return the configuration as a run keeps it: its plug-ins are named by where their copies lie."""
    return replace(config, plugins=tuple(f"{FROZEN}/{Path(path).name}" for path in config.plugins))


def other_plugins(code_folder: Path, plugins: Sequence[str]) -> list[str]:
    """Return those of these plug-ins of which a run has another copy, or none."""
    copies = {path: code_folder / PLUGINS / Path(path).name for path in plugins}
    # By content: a checkout gives unchanged files new times.
    return [path for path, copy in copies.items() if not copy.is_file() or copy.read_bytes() != Path(path).read_bytes()]


def replace_plugins(code_folder: Path, plugins: Sequence[str]) -> None:
    """Give a run that has not begun other copies of its plug-ins."""
    folder = code_folder / PLUGINS
    folder.mkdir(exist_ok=True)
    for path in plugins:
        atomic.write(folder / Path(path).name, Path(path).read_bytes())


def record_plugins(folder: RunFolder) -> None:
    """Keep the hash of each copy that a run has of a plug-in, as it is before the first step."""
    record = {path.name: _hash(path) for path in sorted((folder.code_folder / PLUGINS).glob("*.py"))}
    if record != _recorded(folder):
        atomic.write(folder.plugins_record_path, json.dumps(record, indent=1) + "\n")


def unlike_record(folder: RunFolder, plugins: Sequence[str]) -> list[str]:
    """Return those of these plug-ins that are not what the run began with, by their hashes; none without a record."""
    record = _recorded(folder)
    return [path for path in plugins if record.get(Path(path).name) not in (None, _hash(Path(path)))]


def changed_files(code_folder: Path, source: Path | None = None) -> list[str]:
    """Return the files in which two copies of the code differ, relative and sorted; of the plug-ins too, if both have.

    Without a `source` the other copy is the code that runs now.
    """
    packages = (*PACKAGES, PLUGINS) if source else PACKAGES
    source = source or installed_folder()
    # By content below: shallow would take two files of equal size and time for equal.
    here, there = set(_names(source, packages)), set(_names(code_folder, packages))
    return sorted(here ^ there) + [
        name for name in sorted(here & there) if not filecmp.cmp(source / name, code_folder / name, shallow=False)
    ]


def installed_folder() -> Path:
    """Return the folder that holds the packages which are running."""
    return Path(__file__).resolve().parents[2]


def _recorded(folder: RunFolder) -> dict[str, object]:
    # A run of an earlier version has none.
    return typed_json.read_object(folder.plugins_record_path) if folder.plugins_record_path.is_file() else {}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _names(folder: Path, packages: Sequence[str]) -> list[str]:
    return [
        str(path.relative_to(folder))
        for package in packages
        for path in (folder / package).rglob("*")
        if path.suffix in {".py", ".yaml"}
    ]
