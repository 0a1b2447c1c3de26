"""A resumed run has every step once, in the JSON lines and in TensorBoard."""

import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.sinks import JsonLines, ProgressBar, Sink, TensorBoard


def write(sink: Sink, steps: Iterable[int]) -> None:
    for step in steps:
        sink.write("train", {"step": step, "loss": 1.0 / step})


def test_json_lines_drops_steps_after_the_one_resumed_at_and_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path, 0)
    write(sink, range(1, 8))
    sink.close()
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    sink = JsonLines(path, 4)
    write(sink, range(5, 9))
    sink.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert records[0] == {"kind": "train", "step": 1, "loss": 1.0}


def test_a_run_that_goes_back_rewrites_the_steps_after_it_and_keeps_its_events(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "metrics.jsonl", 0)
    write(sink, range(1, 6))
    sink.rewind(3)
    sink.write("event", {"step": 3, "message": "went back"})
    write(sink, range(4, 6))
    sink.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["kind"], record["step"]) for record in records] == [
        *(("train", step) for step in (1, 2, 3)),
        ("event", 3),
        *(("train", step) for step in (4, 5)),
    ]


def test_tensorboard_shows_no_step_twice(tmp_path: Path) -> None:
    for resumed, steps in ((0, range(1, 8)), (4, range(5, 9))):
        sink = TensorBoard(tmp_path, resumed)
        write(sink, steps)
        sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 9))


@pytest.mark.parametrize("seconds", [-3600.0, 0.0, 3600.0])
def test_tensorboard_shows_all_steps_though_the_clock_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    now = time.time_ns()
    (tmp_path / "events.out.tfevents.what").write_bytes(b"")
    for number, (resumed, steps) in enumerate(((0, range(1, 8)), (4, range(5, 9)), (8, range(9, 12)))):
        monkeypatch.setattr(time, "time_ns", lambda: now + int(number * seconds * 1e9))  # noqa: B023
        monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
        sink = TensorBoard(tmp_path, resumed)
        write(sink, steps)
        if number == 1:
            sink.rewind(7)
            write(sink, (8,))
        sink.close()
    (tmp_path / "events.out.tfevents.what").unlink()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 12))


def test_tensorboard_has_the_pictures_that_it_is_given(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path, 0)
    sink.draw("inputs/image", np.full((4, 6, 3), 200, np.uint8), 5)
    sink.close()
    [event] = EventAccumulator(str(tmp_path)).Reload().Images("inputs/image")
    assert (event.step, event.height, event.width) == (5, 4, 6)


def test_the_progress_bar_tells_step_loss_speed_and_waiting() -> None:
    shown = io.StringIO()
    bar = ProgressBar(10, 2, Console(file=shown, width=120, force_terminal=True, color_system=None))
    bar.write("train", {"step": 5, "loss": 0.25, "samples_per_second": 321.0, "data_wait_share": 0.5})
    bar.write("evaluation", {"step": 5, "samples": 3, "accuracy/all": 0.75})
    bar.write("save", {"step": 5, "error": "No space left on device"})
    bar.close()
    text = shown.getvalue()
    assert all(part in text for part in ("5/10", "loss 0.2500", "321 samples/s", "data wait 50%", "all 75.00%"))
    assert "No space left on device" in text


def test_the_progress_bar_shortens_a_line_that_names_a_thousand_samples() -> None:
    shown = io.StringIO()
    bar = ProgressBar(10, 0, Console(file=shown, width=400, color_system=None))
    bar.write("event", {"step": 5, "message": f"not finite, skipped: batch 4, samples {'00000001 ' * 1000}"})
    bar.close()
    [line] = [line for line in shown.getvalue().splitlines() if "not finite" in line]
    assert len(line) < 300
    assert line.endswith("more characters in metrics.jsonl)")


def test_rewritten_metrics_are_on_the_disk_before_they_take_the_place_of_the_old_ones(
    tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path, 0)
    write(sink, range(1, 4))
    sink.close()
    JsonLines(path, 3).close()
    assert disk_calls == []  # nothing to drop
    JsonLines(path, 2).close()
    hidden = tmp_path / f".metrics.jsonl.{os.getpid()}"
    assert disk_calls == [("sync", str(hidden)), ("name", str(path)), ("sync", str(tmp_path))]
