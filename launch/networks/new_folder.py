"""A folder of files that is complete or absent: written under a hidden name of its own, and renamed in the end.

.OUT.HOST.PID.xxxx    one for each command that makes OUT; what a killed one of this host left is removed by the next
OUT                   the first that ends; the others are refused
"""

import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_shards.files import atomic
from launch.lifecycle.run_folder import making
from trainer.health.process import lives


def refuse_taken(out: Path) -> None:
    """Raise ValueError where something has the name; asked before the work, which takes minutes for ONNX."""
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out}: is there already; choose another folder or remove it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`, which takes its name when all its files are written; ValueError where one has it."""
    refuse_taken(out)
    remedy = "choose another folder"
    with making(out, remedy):
        out.parent.mkdir(parents=True, exist_ok=True)
    of_host = f".{out.name}.{socket.gethostname()}."
    _remove_abandoned(out.parent, of_host)
    # Beside it, and so on the same disk, where a rename is one step.
    hidden = out.with_name(f"{of_host}{os.getpid()}.{secrets.token_hex(4)}")
    with making(out, remedy):
        hidden.mkdir()
    try:
        yield hidden
        _publish(hidden, out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _publish(hidden: Path, out: Path) -> None:
    try:
        atomic.publish(hidden, out)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise ValueError(
            f"{out}: is there already; another command has made it meanwhile: choose another folder or remove it"
        ) from error


def _remove_abandoned(parent: Path, of_host: str) -> None:
    """Remove what commands of this host left that were killed; whether one of another host lives is not known here."""
    for path in parent.iterdir():
        number = re.match(r"(\d+)\.", path.name.removeprefix(of_host)) if path.name.startswith(of_host) else None
        if number and not lives(int(number[1])):
            shutil.rmtree(path, ignore_errors=True)
