"""The damage that a fault campaign does between two starts of a run: to checkpoints and to the run's records."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from launch.lifecycle.run_folder import RunFolder
from trainer.checkpoint.names import complete


def spoil(path: Path, how: str, draws: random.Random) -> None:
    """Flip a bit of a file, cut it, or remove it."""
    content = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(content[: draws.randrange(len(content))])
    else:
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path.write_bytes(content)


def damage_history(folder: RunFolder, draws: random.Random) -> str:
    """Damage one file of the run's records, or leave a copy of a checkpoint beside it; return what was done."""
    checkpoints = complete(folder.checkpoints_folder)
    if checkpoints and draws.random() < _SHARE_OF_COPIES:
        copied = draws.choice(checkpoints)
        target = copied.with_name(f"{copied.name}{draws.choice(_COPIES)}")
        if not target.exists():
            shutil.copytree(copied, target)
            return "copied checkpoint"
    # Sorted: a seed means the same damage, in whatever order a disk lists its files.
    files = sorted(path for path in _records(folder) if path.stat().st_size)
    if not files:
        return ""
    path, how = draws.choice(files), draws.choice(sorted(_WAYS))
    content = bytearray(path.read_bytes())
    _WAYS[how](content, draws)
    path.write_bytes(content)
    return f"{_KINDS.get(path.parent.name, path.name)} {how}"


def _records(folder: RunFolder) -> list[Path]:
    single = [folder.metrics_path, folder.quarantine_path, folder.lock_path]
    return [
        *(path for path in single if path.is_file()),
        *folder.attempts_folder.glob("*/*.json"),
        *folder.watch_folder.glob("*.json"),
    ]


def _flip(content: bytearray, draws: random.Random) -> None:
    """Set the highest bit of a byte, which no text in UTF-8 has by itself."""
    content[draws.randrange(len(content))] |= 0x80


def _cut(content: bytearray, draws: random.Random) -> None:
    del content[draws.randrange(len(content)) :]


def _empty(content: bytearray, _draws: random.Random) -> None:
    content.clear()


# The ways in which a power cut, a full disk or a bad sector leaves a file.
_WAYS: dict[str, Callable[[bytearray, random.Random], None]] = {"flipped": _flip, "cut": _cut, "emptied": _empty}
_KINDS = {"watch": "heartbeat"}
_COPIES = (".bak", ".copy", "_old")
_SHARE_OF_COPIES = 0.2
