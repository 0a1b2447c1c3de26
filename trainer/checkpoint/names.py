"""The checkpoints of a run: their names, and which is the newest complete one. No other module decides this.

A checkpoint is complete when its manifest can be read and all files that it lists are there with their sizes. Whether
their content is what was written, the hashes tell; see manifest.py. Standard library only: the record of
attempts asks under a host's python3.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_shards.files import typed_json

MANIFEST = "checkpoint.json"
# At most 18 digits: such a number fits into 64 bits. Sorted by number, since names of more than eight digits differ in
# length.
_FOLDER = re.compile(r"step_\d{8,18}")
_FILE = re.compile(r"\w+-\d+-of-\d+\.safetensors", re.ASCII)


def name_of(step: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"step_{step:08d}"


def step_of(path: Path) -> int:
    """Return the step of a checkpoint by its folder's name."""
    return int(path.name.removeprefix("step_"))


def committed(folder: Path) -> list[Path]:
    """Return the checkpoints of a run by their names alone, oldest first; some of them may be damaged.

    A copy such as step_00000005.bak is none.
    """
    named = (path for path in folder.glob("step_*") if _FOLDER.fullmatch(path.name))
    # With one zero more, step_000000005 would be step 5 a second time.
    return sorted((path for path in named if path.name == name_of(step_of(path)) and path.is_dir()), key=step_of)


def complete(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return [path for path in committed(folder) if not problem(path)]


def newest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run."""
    return next((path for path in reversed(committed(folder)) if not problem(path)), None)


def newest_step(folder: Path) -> int:
    """Return the step of the newest complete checkpoint; 0 without one."""
    path = newest(folder)
    return step_of(path) if path else 0


def problem(path: Path) -> str:
    """Return why a checkpoint is not complete, or nothing."""
    if path.is_symlink():
        return f"{path}: is a link; a checkpoint is a folder of its run: copy it here under this name"
    try:
        content = typed_json.read_object(path / MANIFEST)
    except ValueError as error:
        return str(error)
    return _problem_of_step(path, content) or next(filter(None, _problems_of_files(path, content)), "")


def _problem_of_step(path: Path, content: dict[str, Any]) -> str:
    state = content.get("state")
    if not isinstance(state, dict):
        return f"{path / MANIFEST}: cannot be read (state: expected an object)"
    step = state.get("step")
    return (
        "" if step == step_of(path) else f"{path / MANIFEST}: is of step {step!r}; give the folder the name of its step"
    )


def _problems_of_files(path: Path, content: dict[str, Any]) -> Iterator[str]:
    files = content.get("files")
    if not isinstance(files, dict):
        yield f"{path / MANIFEST}: cannot be read (files: expected an object)"
        return
    for name, record in files.items():
        # Not only what a checkpoint is called: a name with a slash in it would lead out of the folder.
        if not _FILE.fullmatch(name):
            yield f"{path / MANIFEST}: lists a file {name!r}, which no checkpoint has"
            continue
        yield _problem_of_size(path / name, record)


def _problem_of_size(path: Path, record: object) -> str:
    expected = record.get("num_bytes") if isinstance(record, dict) else None
    try:
        status = path.lstat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"{path}: is not a file but a link or something else; copy the file itself here"
    if status.st_size != expected:
        return f"{path}: {status.st_size} bytes, expected {expected!r}"
    return ""
