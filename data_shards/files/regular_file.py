"""Opens only regular files of a user's folder: a pipe would block the program forever."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path | str) -> BinaryIO:
    """Return the file, opened to read; ValueError where it is a pipe, a socket or a device."""
    return open(path, "rb", opener=_descriptor)


def _descriptor(path: str, flags: int) -> int:
    # Without O_NONBLOCK a pipe opens only when somebody writes into it.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    # Of what is open, and not of the path: that could be replaced by a pipe between the question and the opening.
    mode = os.fstat(descriptor).st_mode
    kind = next((name for matches, name in _KINDS if matches(mode)), None)
    if kind:
        os.close(descriptor)
        raise ValueError(f"is {kind}, no file; remove it, or leave it out")
    return descriptor
