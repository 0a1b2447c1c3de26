"""The claim on a folder: one build at a time, and only the build that was started there."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_shards.building.shard_writer import written_beside


@contextmanager
def claimed(out: Path, fingerprint: str) -> Iterator[None]:
    """Hold the folder for the build of that fingerprint alone; ValueError where it belongs to another one."""
    refuse_another_origin(out)
    notes = out / ".build" / "plan"
    if not notes.exists():
        with written_beside(notes) as file:
            file.write(fingerprint.encode())
    with notes.open() as file:
        try:
            # A lock of the kernel ends with its process, however that ends. A file as a mark would stay behind a killed
            # build.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{out}: another process is building here; wait for it, or choose a new folder") from error
        if file.read() != fingerprint:
            raise ValueError(
                f"{out}: was begun from other rows, files, seed or samples per shard; choose a new folder, "
                "or remove this one to build it again"
            )
        yield


def refuse_another_origin(out: Path) -> None:
    """Raise ValueError where the folder holds shards that no build here began."""
    if (out / ".build" / "plan").exists():
        return
    if (out / "manifest.json").exists() or (out.is_dir() and any(out.glob("*/*.tar"))):
        raise ValueError(f"{out}: holds shards of another origin; choose a new folder")
