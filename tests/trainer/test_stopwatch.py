"""The compiler's own account of its time is the one that an attempt's time takes over."""

import sys
from types import SimpleNamespace

import pytest
import torch

from trainer.engine.stopwatch import Stopwatch, compile_seconds


def test_compile_seconds_grow_by_what_is_compiled_and_by_nothing_else() -> None:
    values = torch.ones(3)
    doubled = torch.compile(double, backend="eager")
    before = compile_seconds()
    torch.testing.assert_close(doubled(values), values * 2)
    after = compile_seconds()
    assert after > before
    doubled(values)
    assert compile_seconds() == after


def test_who_has_compiled_nothing_has_taken_no_time_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(calculate_time_spent=dict)
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", nothing)  # type: ignore[arg-type]
    assert compile_seconds() == 0.0
    monkeypatch.delitem(sys.modules, "torch._dynamo.utils")
    assert compile_seconds() == 0.0


def double(values: torch.Tensor) -> torch.Tensor:
    return values * 2


def test_a_stopwatch_sums_what_was_inside_and_begins_anew_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("trainer.engine.stopwatch.time", clock)
    watch = Stopwatch(torch.device("cpu"))
    for inside, outside in ((2.0, 5.0), (3.0, 7.0)):
        with watch:
            clock.now += inside
        clock.now += outside
    assert watch.read() == 5.0
    assert watch.read() == 0.0


def test_on_a_gpu_the_time_is_that_between_the_events_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(milliseconds=0.0)

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = clock.milliseconds

        def elapsed_time(self, stop: "Event") -> float:
            return stop.at - self.at

    monkeypatch.setattr("torch.cuda.Event", Event)
    watch = Stopwatch(torch.device("cuda"))
    for inside, outside in ((2.0, 5.0), (3.0, 7.0)):
        with watch:
            clock.milliseconds += inside
        clock.milliseconds += outside
    assert watch.read() == 0.005
    assert watch.read() == 0.0
