"""`perceiver fork` and `perceiver diff`: a new run from where another is, and in what two runs differ."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.run import difference, load
from launch import attempts
from launch.folder import RunFolder, as_typed, existing
from launch.freeze import changed_files
from launch.open_run import open_run


def fork(path: Path, new_path: Path, overrides: Sequence[str]) -> int:
    """Make a run with the other's newest checkpoint and another configuration; return the exit status."""
    old, new = existing(RunFolder(path.resolve())), RunFolder(new_path.resolve())
    if new.exists:
        raise ValueError(f"{new.path}: holds a run already; choose another folder")
    config = load(old.config_path, overrides)
    step = attempts.newest_step(old)
    open_run(config, new)
    if step:
        name = f"step_{step:08d}"
        beside = new.checkpoints_folder / f".{name}.tmp"
        # Checkpoints are never changed, so that both runs may share the bytes.
        shutil.copytree(old.checkpoints_folder / name, beside, copy_function=_link)
        beside.rename(new.checkpoints_folder / name)
    sys.stdout.write(f"{as_typed(new.path)}: goes on from step {step} of {as_typed(old.path)}\n")
    for line in difference(load(old.config_path), config):
        sys.stdout.write(f"  {line}\n")
    return 0


def diff(one: Path, other: Path) -> int:
    """Print the values and the code files in which two runs differ; return 0 if there are none, else 1."""
    first, second = existing(RunFolder(one.resolve())), existing(RunFolder(other.resolve()))
    lines = difference(load(first.config_path), load(second.config_path))
    files = [f"code/{name}" for name in changed_files(first.code_folder, second.code_folder)]
    for line in [*lines, *files]:
        sys.stdout.write(f"{line}\n")
    return 1 if lines or files else 0


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
