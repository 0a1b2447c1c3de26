"""The copy of the code that a run keeps for all its restarts.

Slurm starts a run long after it was submitted, and again after each preemption. By then the checkout may have changed.
"""

import filecmp
import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from configs.plugins import FROZEN
from configs.run import RunConfig
from data_shards.files import atomic, typed_json
from launch.lifecycle.holder import refuse_if_trained
from launch.lifecycle.run_folder import RunFolder, as_typed
from trainer.health.run_lock import RunLock

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


def refuse_edited_copies(folder: RunFolder, sources: Sequence[str]) -> None:
    """Raise ValueError where a run's own copy of a plug-in is not what it made its first step with."""
    copies = [str(folder.code_folder / PLUGINS / Path(path).name) for path in sources]
    edited = unlike_record(folder, [copy for copy in copies if Path(copy).is_file()])
    if edited:
        raise ValueError(
            f"{', '.join(edited)}: edited since the run's first step, and a plug-in decides the result; put back what "
            f"it was, or make a run with it from where this one is (perceiver fork {shlex.quote(str(folder.path))} NEW "
            "--trust-code)"
        )


def take_plugins(folder: RunFolder, sources: Sequence[str], *, has_begun: bool) -> None:
    """Give edited plug-ins to a run that has not begun; ValueError where it has, since they decide its result."""
    others = other_plugins(folder.code_folder, sources) if folder.code_folder.is_dir() else []
    known = [path for path in others if (folder.code_folder / PLUGINS / Path(path).name).is_file()]
    if has_begun and known:
        names = ", ".join(Path(path).name for path in known)
        run, files = shlex.quote(str(folder.path)), shlex.quote(f"plugins=[{','.join(sources)}]")
        raise ValueError(
            f"{folder.path}: the run began with another {names} than {known[0]}; "
            f"resume with its own copy (perceiver train {shlex.quote(str(folder.config_path))} --run {run}), make a "
            f"run with the other from where this one is (perceiver fork {run} NEW {files} --trust-code), or choose "
            "another --run folder"
        )
    if others and not has_begun:
        refuse_if_trained(folder)
        # Somebody may start the run between the question and the change.
        with RunLock(folder.lock_path):
            replace_plugins(folder.code_folder, others)
            # It may list samples that the plug-in of before could not read.
            folder.quarantine_path.unlink(missing_ok=True)
            sys.stderr.write(
                f"note: {as_typed(folder.path)} had not begun; it takes {', '.join(others)} as it is now\n"
            )


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
