"""The claim of a start on its run: the process group that trains holds the lock and owns the newest attempt.

However a run is started, there is one lock and one newest attempt, so that every start sees every other:

    started by                  the lock is held by                     the attempt is begun and ended by
    perceiver train, torchrun   rank 0                                  rank 0
    perceiver train --procs     the supervisor; its ranks inherit it    the supervisor
    Slurm                       rank 0, where the disk has locks        the batch script
"""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

from launch.lifecycle import attempts
from launch.lifecycle.agreement import first_does, together
from launch.lifecycle.attempts import JOB, RankRecord
from launch.lifecycle.exit_status import BAD_INPUT, FAILED
from launch.lifecycle.fence import SUPERVISOR, Fence
from launch.lifecycle.heartbeat import Heartbeat
from launch.lifecycle.run_folder import RunFolder
from trainer.distributed.node import Node
from trainer.distributed.world import World
from trainer.health.process import end_with_parent
from trainer.health.run_lock import RunLock

_TORCHRUN = "TORCHELASTIC_RUN_ID"
T = TypeVar("T")


class Claim:
    """Held while the context lasts. Entering is Collective: ValueError on rank 0 where another start has the run.

    The attempt of a supervised rank was begun by its supervisor, which records how it ends; a plain start begins and
    ends one of its own, so that it too supersedes every earlier one, and is seen by whoever comes after it.
    """

    def __init__(self, folder: RunFolder, world: World, *, take_over: bool, heartbeat: Heartbeat | None = None) -> None:
        """`heartbeat` is that of a supervised rank, which has begun before."""
        self._folder = folder
        self._world = world
        self._take_over = take_over
        self._heartbeat = heartbeat
        self._stack = ExitStack()
        # Until somebody says otherwise: a process that dies in between has failed.
        self._status = FAILED
        self.fence = Fence.of(folder)
        """Says whether this start may still write."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.fence.is_supervised:
                _lock_of_attempt(self._folder, self._world, stack)
            else:
                lock = RunLock(self._folder.lock_path, take_over=self._take_over)
                # The lock before the attempt: a start that is refused must not supersede the one that trains.
                first_does(self._world, lambda: stack.enter_context(lock))
                self._begin(stack)
            if self._heartbeat is not None:
                self._heartbeat.share(Node.join(self._world))
            # Only now does leaving undo what was entered; an error above has undone it already.
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ranks but the first leave bad input by SystemExit, since the first has the sentence.
        if isinstance(error, ValueError) or (isinstance(error, SystemExit) and error.code == BAD_INPUT):
            self._status = BAD_INPUT
        self._stack.__exit__(kind, error, trace)

    def leaves_with(self, status: int) -> None:
        """Say with which exit status this process is going to leave."""
        self._status = status

    def _begin(self, stack: ExitStack) -> None:
        """Begin an attempt of this start's own, after the lock is taken: what was asked of an earlier one is over."""
        if _TORCHRUN in os.environ:
            # A torchrun that is killed leaves its ranks behind, and they would hold the run.
            end_with_parent(os.getppid())
        folder, world = self._folder, self._world
        nodes = sorted(set(world.gather(socket.gethostname())))
        record = RankRecord.here(world.rank)

        def begin() -> int:
            if not world.is_first:
                return 0
            # A request to stop was meant for the attempt that is over.
            folder.stop_path.unlink(missing_ok=True)
            return attempts.begin(folder, job_id="", nodes=nodes).number

        number = world.broadcast(together(world, lambda: _written(folder, begin)))
        heartbeat = together(world, lambda: _written(folder, lambda: attempts.write_rank(folder, number, record)))
        self.fence = Fence.before(folder, number)
        # Undone in reverse order: the heartbeat stops, each rank records its status, the attempt ends, the lock is
        # free.
        if world.is_first:
            stack.callback(lambda: attempts.end(folder, number, self._status))
        self._heartbeat = self.fence.watch(heartbeat)
        stack.callback(lambda: self._leave(record, number))
        stack.callback(self._heartbeat.set)

    def _leave(self, record: RankRecord, number: int) -> None:
        with suppress(OSError):  # on a full disk; a rank without a record counts as killed
            attempts.write_rank(self._folder, number, replace(record, status=self._status))


def _written(folder: RunFolder, work: Callable[[], T]) -> T:
    """Return the work's result; ValueError where the disk takes no file."""
    try:
        return work()
    except OSError as error:
        raise ValueError(
            f"{folder.path}: cannot be written ({error.strerror}); the same command resumes once files can be written"
        ) from error


def _lock_of_attempt(folder: RunFolder, world: World, stack: ExitStack) -> None:
    """Hold the lock of a supervised attempt too: a local supervisor does so itself, a job where it can.

    A job does without where it cannot: a host that is lost may hold the lock on a shared disk for long, and there are
    disks without locks. Its fence keeps earlier attempts out.
    """
    if SUPERVISOR in os.environ or not world.is_first:
        return
    try:
        stack.enter_context(RunLock(folder.lock_path, take_over=True, job_id=os.environ.get(JOB, "")))
    except ValueError as refusal:
        sys.stderr.write(f"note: {refusal}; this attempt is the newest, and trains\n")
