"""A stop is remembered, not acted upon; afterwards everything is as before."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.health.stop_request import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_raises_the_flag_and_names_itself(number: int) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_raised()
        os.kill(os.getpid(), number)
        assert stop.is_raised()
        assert stop.reason == signal.Signals(number).name
    assert signal.getsignal(number) == before


def test_a_stop_file_raises_the_flag(tmp_path: Path) -> None:
    path = tmp_path / "stop"
    path.touch()
    assert StopRequest(path).is_raised()
    assert not StopRequest(tmp_path / "other").is_raised()


def test_a_time_limit_raises_the_flag() -> None:
    assert StopRequest(time_limit_seconds=1e-9).is_raised()
    assert not StopRequest(time_limit_seconds=1e9).is_raised()


def test_the_stop_file_is_looked_for_once_a_second_and_the_first_reason_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.health.stop_request.time", clock)
    path = tmp_path / "stop"
    stop, limited = StopRequest(path), StopRequest(path, time_limit_seconds=10.0)
    assert (stop.is_raised(), limited.is_raised()) == (False, False)
    path.touch()
    for clock.now, is_raised in ((100.9, False), (101.0, True), (500.0, True)):
        assert stop.is_raised() is is_raised
    assert stop.reason == "stop file"
    path.unlink()
    for clock.now, is_raised in ((109.9, False), (110.0, True)):
        assert limited.is_raised() is is_raised
    path.touch()
    clock.now = 200.0
    assert limited.is_raised()
    assert (limited.reason, StopRequest().reason) == ("time limit", "")


def test_a_forked_child_does_not_take_the_signal_for_its_own(tmp_path: Path) -> None:
    with StopRequest() as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(int(stop.is_raised()))
        assert os.waitpid(child, 0)[1] == 0
        assert not stop.is_raised()
