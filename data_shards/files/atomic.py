"""Atomic writes: files and folders are complete or absent, and survive a power cut.

The one place in which the product writes beside a name and renames. Standard library only: all layers import it, and
some of them run under a host's python3.

    write .NAME.PID      readers see the old NAME, or none
    fsync .NAME.PID      without it, a power cut after the rename can leave NAME with none of its bytes
    rename to NAME       readers see the new NAME, whole
    fsync the folder     without it, a power cut can bring the old NAME back
"""

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_SYNCS_AT_ONCE = 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_IN_THE_WAY = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
)


def write(path: Path, content: str | bytes, *, survives_power_cut: bool = True) -> None:
    """Write a file atomically: readers see the old or the new content. After an OSError the old content is kept.

    A heartbeat, or what the next seconds overwrite, need not survive a power cut: syncing it would cost more than it.
    """
    with written_beside(path, survives_power_cut=survives_power_cut) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_beside(path: Path, *, survives_power_cut: bool = True) -> Iterator[BinaryIO]:
    """Give a file beside `path` that takes its name when the block ends, and is gone where the block raises."""
    with beside(path, survives_power_cut=survives_power_cut) as hidden, hidden.open("wb") as file:
        yield file


@contextmanager
def beside(path: Path, *, survives_power_cut: bool = True) -> Iterator[Path]:
    """Give the hidden name of a file that others write; it takes the name `path` when the block ends."""
    # In the same folder: a rename is atomic within one file system alone. The number keeps processes apart.
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield hidden
        if survives_power_cut:
            sync(hidden)
        hidden.replace(path)
    except Exception:
        with suppress(OSError):  # its folder may be what is missing
            hidden.unlink()
        raise
    if survives_power_cut:
        sync(path.parent)


def publish(folder: Path, name: Path) -> None:
    """Give a folder that was made beside its name that name, with all that is in it on the disk."""
    sync_tree(folder)
    rename(folder, name)


def rename(path: Path, name: Path) -> None:
    """Rename a file or folder whose content is on the disk, so that its new name is too."""
    path.rename(name)
    sync(name.parent)


def sync_tree(folder: Path) -> None:
    """Make a folder and everything in it durable."""
    walked = [Path(root, name) for root, _, names in os.walk(folder) for name in (".", *names)]
    # A disk commits what many ask for at once in one go: 470 files of code take 0.1 s in place of 1.1.
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        list(pool.map(sync, (path for path in walked if path.is_dir() or path.is_file())))


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, durable; some file systems have no sync of folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def of_disk(error: OSError) -> str:
    """Return the sentence for an error that only the owner of the disk can correct; empty for any other."""
    # Of a rename the second name is the one that a user knows.
    path = error.filename2 or error.filename
    where = f"{path}: " if path else ""
    if error.errno in _FULL:
        return f"{where}cannot be written ({error.strerror}); free space or repair the disk, then start again"
    # Of a link to nowhere a read says that there is no file, mkdir that there is one.
    if path and error.errno in (errno.ENOENT, errno.EEXIST) and (link := _link_to_nothing(Path(os.fsdecode(path)))):
        return (
            f"{link}: is a link to {link.readlink()}, which is not there; bring that back or remove the link, then "
            "start again"
        )
    if path and error.errno in _IN_THE_WAY:
        return f"{where}cannot be used ({error.strerror}); move it away or correct its permissions, then start again"
    return ""


def _link_to_nothing(path: Path) -> Path | None:
    return next((each for each in (path, *path.parents) if each.is_symlink() and not each.exists()), None)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, whichever is there."""
    # Of a link only the link: what it leads to is not ours to remove.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
