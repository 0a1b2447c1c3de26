"""A small disk for a run with injected faults: a tmpfs that can be filled, where this user may mount one."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# For what a run writes beside its own size: logs, curves, a checkpoint that is being written.
_SPARE_BYTES = 16 << 20
_ROOM_FOR_RUNS = 3
_MOST_BYTES = 1 << 30
"""The maximum size of the tmpfs, whose contents take memory."""
_BLOCKS = (1 << 20, 1 << 12)


@contextmanager
def small_disk(folder: Path, like: Path) -> Iterator[Path | None]:
    """Put a new folder on a disk with room for a few runs like that one; what it holds in the end stays in the folder.

    Gives the path of the ballast that fills it, or None where nothing can be mounted or the run is too large for it.
    """
    folder.mkdir()
    num_bytes = _SPARE_BYTES + _ROOM_FOR_RUNS * sum(path.stat().st_size for path in like.rglob("*") if path.is_file())
    if num_bytes > _MOST_BYTES or not _is_done(["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", folder]):
        yield None
        return
    try:
        yield folder / ".ballast"
    finally:
        beside = folder.with_name(f"{folder.name}.kept")
        # Before it is unmounted, with which all of it goes: what a failed campaign left has to be read afterwards.
        shutil.copytree(folder, beside, symlinks=True)
        if _is_done(["umount", folder]):
            folder.rmdir()
            beside.rename(folder)


@contextmanager
def filled(ballast: Path) -> Iterator[None]:
    """Leave no byte free on the disk of this file while the context lasts."""
    try:
        # Large blocks first and small ones for the rest: every later byte of the run has to fail.
        with ballast.open("wb", buffering=0) as file:
            for num_bytes in _BLOCKS:
                with suppress(OSError):  # no space left on device
                    while True:
                        file.write(bytes(num_bytes))
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _is_done(command: list[str | Path]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
