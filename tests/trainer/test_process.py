"""The kernel is asked whether a process lives; an id that another process has now is not the same one."""

import os
import signal
import time

from trainer.health.process import end_with_parent, lives, start_ticks


def test_a_process_lives_until_it_has_ended_though_nobody_has_asked_for_its_status() -> None:
    assert lives(os.getpid())
    assert start_ticks(os.getpid()) > 0
    assert not lives(2**22 + 1)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not lives(child), "a zombie"
    os.waitpid(child, 0)
    assert start_ticks(child) == 0


def test_a_process_that_began_later_has_later_ticks() -> None:
    begun = start_ticks(os.getpid())
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        assert begun <= start_ticks(child) <= time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") + 1
        assert lives(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_process_ends_with_its_parent_however_that_ends() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        middle = os.getpid()
        if os.fork() == 0:
            end_with_parent(middle)
            os.write(writer, b"bound")
            signal.alarm(60)
            signal.pause()
            os._exit(0)
        signal.pause()
    os.close(writer)
    assert os.read(reader, 5) == b"bound"
    started = time.monotonic()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    # The pipe ends when the last process that can write to it has.
    assert os.read(reader, 1) == b""
    assert time.monotonic() - started < 50
    os.close(reader)


def test_a_process_whose_parent_has_ended_already_does_not_begin() -> None:
    for parent, status in ((os.getpid(), 7), (2**22 + 1, -signal.SIGKILL)):
        child = os.fork()
        if child == 0:
            end_with_parent(parent)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
