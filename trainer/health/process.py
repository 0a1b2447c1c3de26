"""What the kernel knows of a process: whether it lives, since when, and its parent. Standard library only."""

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h; Python has no name for it."""


def start_ticks(pid: int) -> int:
    """Return when a process of this host began, in ticks since the boot; 0 where it is gone or a zombie.

    With the process id it names a process for good: an id alone may belong to another one later.
    """
    try:
        # After the last parenthesis: the name of a process stands in parentheses, and may have some, and blanks,
        # itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def lives(pid: int) -> bool:
    """Return whether a process of this host runs or can run again; a zombie does not."""
    return start_ticks(pid) > 0


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends; end it now if the parent has ended already."""
    # Where there is no such call, as on macOS, the lock that the ranks inherit still keeps a second start out.
    if hasattr(prctl := ctypes.CDLL(None), "prctl"):
        prctl.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
