"""Two starts never share a run; a dead one does not hold it, except on a host that cannot be seen."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainer.health import run_lock
from trainer.health.process import start_ticks
from trainer.health.run_lock import RunLock

HOLDER = """
import sys, pathlib
from trainer.health.run_lock import RunLock
with RunLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
HERE = f"process {os.getpid()} on {socket.gethostname()}, since"


def test_the_second_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with RunLock(path), pytest.raises(ValueError, match=HERE):
        RunLock(path).__enter__()
    with RunLock(path):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid}"):
            RunLock(path).__enter__()
        assert run_lock.is_held(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not run_lock.is_held(path)
    assert not run_lock.is_alive_here(run_lock.claim_in(path))
    with RunLock(path):
        pass


def test_a_child_that_outlives_the_holder_holds_the_lock_for_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with RunLock(path) as held:
        # It ends when its standard input does.
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[held.descriptor])
    with child:
        assert run_lock.is_held(path)
        with pytest.raises(ValueError, match="is training in this run"):
            RunLock(path).__enter__()
    assert not run_lock.is_held(path)


def test_a_lock_of_another_host_needs_the_flag(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    claim = json.dumps({"host": "elsewhere", "pid": 7, "since": "2026-01-01T00:00:00+00:00"})
    path.write_text(claim)
    with pytest.raises(ValueError, match=r"process 7 on elsewhere.*--take-over"):
        RunLock(path).__enter__()
    assert path.read_text() == claim
    with RunLock(path, take_over=True):
        assert run_lock.claim_in(path)["pid"] == os.getpid()


def test_a_claim_of_a_process_whose_id_is_now_anothers_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with RunLock(path):
        claim = run_lock.claim_in(path)
    assert run_lock.is_alive_here(claim)
    assert not run_lock.is_alive_here({**claim, "start_ticks": int(str(claim["start_ticks"])) - 1})
    assert not run_lock.is_alive_here({**claim, "host": "elsewhere"})


def test_asking_for_the_holder_takes_the_lock_from_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not run_lock.is_held(path)
    with RunLock(path):
        for _ in range(3):
            assert run_lock.is_held(path)
        with pytest.raises(ValueError, match=HERE):
            RunLock(path).__enter__()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_disk_without_locks_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(_descriptor: int, _kind: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ValueError, match=rf"lock: .*{os.strerror(number)}.*-o flock.*--run on another"):
        RunLock(tmp_path / "lock").__enter__()
    assert not run_lock.is_held(tmp_path / "lock")


def test_a_damaged_claim_stops_no_start(tmp_path: Path) -> None:
    for content in (b"", b"{", b"\xff\xfe", b"[1]", b'"text"', b"null"):
        (tmp_path / "lock").write_bytes(content)
        with RunLock(tmp_path / "lock"):
            pass


def test_a_claim_says_who_holds_the_run_and_is_gone_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert run_lock.claim_in(path) == {}
    with RunLock(path, job_id="4711_2") as held:
        claim = run_lock.claim_in(path)
        assert (claim["host"], claim["pid"], claim["job_id"]) == (socket.gethostname(), os.getpid(), "4711_2")
        assert claim["start_ticks"] == start_ticks(os.getpid())
        assert held.descriptor >= 0
        assert not os.get_inheritable(held.descriptor)
    assert held.descriptor == -1
    assert path.read_text() == ""
    assert run_lock.claim_in(path) == {}
    # Over a longer claim of an earlier holder nothing of it is left.
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "words": "x" * 500}))
    with RunLock(path):
        assert "words" not in run_lock.claim_in(path)
    with RunLock(path):
        pass


def test_a_refused_start_leaves_the_claim_and_the_lock_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    second = RunLock(path, take_over=True)
    with RunLock(path):
        claim = run_lock.claim_in(path)
        with pytest.raises(ValueError, match=HERE):
            second.__enter__()
        assert second.descriptor == -1
        second.__exit__()
        assert run_lock.claim_in(path) == claim
        assert run_lock.is_held(path)


def test_a_claim_of_an_earlier_release_is_known_by_its_process_alone(tmp_path: Path) -> None:
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    assert run_lock.is_alive_here(here)
    assert run_lock.is_alive_here({**here, "start_ticks": None})
    assert not run_lock.is_alive_here({**here, "start_ticks": 0}), "the system did not tell"
    assert not run_lock.is_alive_here({**here, "pid": 2**22 + 1})
    assert not run_lock.is_alive_here({**here, "pid": "7"})
    assert not run_lock.is_alive_here({**here, "pid": 2**22 + 1, "start_ticks": 0})


def test_where_there_are_no_locks_a_living_claim_holds_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    with RunLock(path):

        def flock(_descriptor: int, _kind: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        with monkeypatch.context() as without:
            without.setattr(fcntl, "flock", flock)
            assert run_lock.is_held(path)


def test_who_only_asks_does_not_stop_a_start(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not run_lock.is_held(path), "two who ask do not take each other for a holder"
        timer = threading.Timer(0.1, lambda: fcntl.flock(asking, fcntl.LOCK_UN))
        timer.start()
        with RunLock(path):
            assert run_lock.is_held(path)
        timer.join()


def test_a_lock_that_cannot_be_opened_is_told_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(ValueError, match=r"lock: cannot be opened \(Is a directory\).*--run folder"):
        RunLock(tmp_path / "lock").__enter__()


def test_a_claim_is_on_the_disk_and_everybody_may_read_it(tmp_path: Path, disk_calls: list[tuple[str, str]]) -> None:
    path = tmp_path / "lock"
    with RunLock(path):
        assert disk_calls == [("sync", str(path))]
        assert path.stat().st_mode & 0o777 == 0o644
