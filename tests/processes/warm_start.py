"""Processes that begin where their imports are done: a start takes 0.1 s of processor time in place of 5.

A server has imported torch, DeepSpeed and the product, has one thread and has computed nothing. For each start it forks
a child, which gets arguments, environment, working directory and pipes of its own, and then runs as `python -m MODULE`,
`python -c CODE` or `python SCRIPT` would, to the interpreter's own end. The child is a process like any other: it has a
pid, can be killed, and exits with a status, which the server passes on.

    test                         server                          child
      | -- words, environment ->   |
      |    and pipes               | -- fork ------------------->  | runs
      | <- pid ------------------  |                               |
      | <- status ---------------  | <- waitpid ------------------ | ends

With `warm_children` the child's own children begin warm, too (nursery.py).

What a process imports, and what the interpreter does before that, is tested by `subprocess` alone.
"""

import json
import os
import select
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from subprocess import Popen
from typing import Any

from nursery import MOST_BYTES, MOST_DESCRIPTORS, can_begin_warm, place, request_of, with_nursery

REPOSITORY = Path(__file__).parents[2]
# The server waits so long for a request before it looks whether a child has ended.
_LOOK_SECONDS = 0.02
_IMPORTED = (
    "launch.cli.main",
    "launch.run.composition",
    "launch.supervise.rank",
    "trainer.engine.deepspeed_start",
    # What a run imports where it uses it.
    "launch.answers.commands",
    "launch.pictures.drawing",
    "launch.run.trained.evaluation",
    "rich.progress",
    "tensorboard.summary.writer.record_writer",
    "torch.utils.tensorboard.summary",
)


class Warm(Popen[Any]):
    """A subprocess.Popen; where it is a start of this Python, one that begins warm, as its children do."""

    warm_children = True
    _is_warm = False

    # The three that Popen would ask the system for, of a process that is no child of this one.

    def _execute_child(self, args: Any, *rest: Any) -> None:  # noqa: ANN401  # those of Popen
        if not can_begin_warm(args):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        self._is_warm = True
        request, descriptors, pipes = request_of(args, *rest)
        self.pid = _server().start(request | {"warm_children": self.warm_children}, descriptors)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, *words: Any, **options: Any) -> int | None:  # noqa: ANN401
        if not self._is_warm:
            return super()._internal_poll(*words, **options)  # type: ignore[misc,no-any-return]
        if self.returncode is None:
            self.returncode = _server().status(self.pid, wait=False)
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if not self._is_warm:
            return super()._try_wait(wait_flags)  # type: ignore[misc,no-any-return]
        status = _server().status(self.pid, wait=not wait_flags & os.WNOHANG)
        if status is None:
            return 0, 0
        # As waitpid says it.
        return self.pid, -status if status < 0 else status << 8


class WarmProcess(Warm):
    """A Warm, in text, of `[sys.executable, "-m", MODULE, ...]`, `"-c", CODE` or `SCRIPT`."""

    def __init__(self, words: list[str], *, warm_children: bool = False, **options: Any) -> None:  # noqa: ANN401
        self.warm_children = warm_children
        super().__init__(words, text=True, **options)


def finished(words: list[str], *, timeout: float = 280, **options: Any) -> "subprocess.CompletedProcess[str]":  # noqa: ANN401
    """Run a WarmProcess to its end, as subprocess.run with `capture_output` does."""
    with WarmProcess(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


class Server:
    """The process that forks the others; it ends when this one does."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._ended: dict[int, int] = {}
        self._started: dict[int, int] = {}
        self._num_asked = 0
        environment = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE"}}
        with theirs:
            self._process = Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=REPOSITORY,
                env=environment | {"PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def start(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Return the pid of a new process."""
        with self._lock:
            # Whoever gives up waiting, as a test does whose time is up, leaves an answer that is not the next one's.
            self._num_asked += 1
            number = self._num_asked
            socket.send_fds(self._channel, [json.dumps(request | {"number": number}).encode()], descriptors)
            while number not in self._started:
                self._listen()
            return self._started.pop(number)

    def status(self, pid: int, *, wait: bool) -> int | None:
        """Return the status with which a process ended, -N for signal N; None while it runs."""
        while True:
            with self._lock:
                while pid not in self._ended and select.select([self._channel], [], [], 0)[0]:
                    self._listen()
                if pid in self._ended or not wait:
                    return self._ended.get(pid)
            select.select([self._channel], [], [], _LOOK_SECONDS)

    def _listen(self) -> None:
        message = self._channel.recv(MOST_BYTES)
        assert message, "the server of processes has ended"
        pid, status, number = json.loads(message)
        if status is None:
            self._started[number] = pid
        else:
            self._ended[pid] = status


@cache
def _server() -> Server:
    return Server()


def _serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork a child for each request, and return in the child alone."""
    num_children = 0
    while True:
        ready, _, _ = select.select([channel], [], [], _LOOK_SECONDS if num_children else None)
        while num_children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            num_children -= 1
            channel.send(json.dumps([pid, os.waitstatus_to_exitcode(status), 0]).encode())
        if not ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, MOST_DESCRIPTORS)
        if not message:
            # No interpreter's end: it is as if this process had never been.
            os._exit(0)
        request = json.loads(message)
        pid = os.fork()
        if not pid:
            channel.close()
            return request, list(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        num_children += 1
        channel.send(json.dumps([pid, None, request["number"]]).encode())


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process what `python WORDS` would be, and run it."""
    import runpy

    while request["warm_children"]:
        mine = request
        request, descriptors = with_nursery(request, descriptors)
        if request is mine:
            break
    place(descriptors, request["numbers"])
    if request["own_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    words = request["words"]
    if words[0] == "-u":
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        del words[0]
    if words[0] == "-m":
        sys.path[0] = request["cwd"]
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path[0] = request["cwd"]
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path[0] = str(Path(words[0]).parent)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _leave() -> None:
    """End as the interpreter would, but that it would take all that was imported apart, for a third of a second."""
    import atexit

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _import_all() -> None:
    """Import what the processes will need, and let their collectors of garbage pass it over."""
    import gc
    import importlib

    for name in _IMPORTED:
        importlib.import_module(name)
    import torch

    # DeepSpeed is two thirds of the processor time of a rank that trains a few steps. It picks its device while it is
    # imported: where that may be a GPU each process does it, as in a real start.
    if not torch.backends.cuda.is_built():
        from trainer.distributed.world import World
        from trainer.engine.deepspeed_start import _import_deepspeed

        _import_deepspeed(World(0, 1, 0, torch.device("cpu")))
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _import_all()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
    _leave()
