"""The children of a process that began warm begin warm, too: those of a supervisor, of torchrun, of a campaign.

Before it runs, the process forks a nursery, which forks for it. What comes from there is the child of whoever asked, as
after a subprocess.Popen: the process between the two ends at once, and the kernel passes its orphan on to the nearest
subreaper.

    supervisor                  nursery                between            rank
      | -- words, environment ->  | -- fork ----------->  | -- fork ------->  |
      | <- pid -----------------  | <- waitpid ---------- ends                | waits until its parent is
      | <---------------------------------------------------------------------  the supervisor, and runs
      | <- its status, from the kernel -------------------------------------- ends
"""

import ctypes
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from subprocess import Popen
from typing import Any, ClassVar

MOST_BYTES = 1 << 17
MOST_DESCRIPTORS = 16
_PR_SET_CHILD_SUBREAPER = 36
"""Of linux/prctl.h; Python has no name for it."""
_ABOVE_ALL_OTHERS = 500
"""No descriptor that a process is given has such a number."""


def can_begin_warm(args: Any) -> bool:  # noqa: ANN401  # those of Popen
    """Return whether this is a start of this Python without options of its own but -u."""
    if not isinstance(args, list | tuple) or args[0] != sys.executable:
        return False
    return args[1] in {"-u", "-m", "-c"} or not args[1].startswith("-")


def request_of(args: Any, *rest: Any) -> tuple[dict[str, Any], list[int], tuple[int, ...]]:  # noqa: ANN401  # those of Popen
    """Return what is asked for, the descriptors for it, and the pipes to close, of the arguments of _execute_child."""
    _executable, _preexec, _close_fds, pass_fds, cwd, env, _startupinfo, _flags, _shell, *others = rest
    pipes, own_session = tuple(others[:6]), others[11]
    child_in, _, _, child_out, _, child_error = pipes
    request = {
        "words": list(map(str, args[1:])),
        "cwd": os.fspath(cwd or Path.cwd()),
        "environment": dict(os.environ if env is None else env),
        "numbers": [0, 1, 2, *pass_fds],
        "own_session": own_session,
        "parent": os.getpid(),
    }
    given = [fd if fd >= 0 else own for own, fd in enumerate((child_in, child_out, child_error))]
    return request, [*given, *pass_fds], pipes


def place(descriptors: list[int], numbers: list[int]) -> None:
    """Give each descriptor its number."""
    # Out of the way first: a number that is asked for may be that of another one.
    above = max(*descriptors, *numbers) + 1
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(aside, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def with_nursery(request: dict[str, Any], descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
    """Let the children of this process come from a nursery; return the request of this process or, in them, theirs."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    ours, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        channel.close()
        _Born.nursery = socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _ABOVE_ALL_OTHERS))
        ours.close()
        subprocess.Popen = _Born  # type: ignore[misc]
        return request, descriptors
    ours.close()
    for descriptor in descriptors:
        os.close(descriptor)
    return _nurse(channel)


class _Born(Popen[Any]):
    """A subprocess.Popen that comes from the nursery where it is a start of this Python."""

    nursery: ClassVar[socket.socket]

    def _execute_child(self, args: Any, *rest: Any) -> None:  # noqa: ANN401  # those of Popen
        if not can_begin_warm(args):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        request, descriptors, pipes = request_of(args, *rest)
        socket.send_fds(self.nursery, [json.dumps(request | {"warm_children": True}).encode()], descriptors)
        self.pid = json.loads(self.nursery.recv(MOST_BYTES))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _nurse(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork an orphan for each request, and return in the orphan alone."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, MOST_DESCRIPTORS)
        if not message:
            os._exit(0)
        request = json.loads(message)
        told, telling = os.pipe()
        between = os.fork()
        if not between:
            pid = os.fork()
            if pid:
                os.write(telling, str(pid).encode())
                os._exit(0)
            channel.close()
            os.close(told)
            os.close(telling)
            while os.getppid() != request["parent"]:
                time.sleep(0.001)
            return request, list(descriptors)
        os.close(telling)
        os.waitpid(between, 0)
        channel.send(os.read(told, MOST_BYTES))
        for descriptor in (told, *descriptors):
            os.close(descriptor)
