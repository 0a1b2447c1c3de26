"""A resumed run has every step once, in the JSON lines and in TensorBoard."""

import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.sinks.writers import JsonLines, ProgressBar, Sink, TensorBoard, append_event


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
    bar.write("evaluation", {"step": 5, "samples": 3, "label/accuracy": 0.75, "summary": "label accuracy 75.00%"})
    bar.write("save", {"step": 5, "error": "No space left on device"})
    bar.close()
    text = shown.getvalue()
    assert all(part in text for part in ("5/10", "loss 0.2500", "321 samples/s", "data wait 50%", "accuracy 75.00%"))
    assert "No space left on device" in text


@pytest.mark.parametrize(("is_terminal", "num_lines"), [(False, 1), (True, 2)])
def test_a_message_is_wrapped_on_a_terminal_alone(is_terminal: bool, num_lines: int) -> None:
    shown = io.StringIO()
    bar = ProgressBar(10, 0, Console(file=shown, width=80, force_terminal=is_terminal, color_system=None))
    message = "training, 10 steps: 21 of 80 samples of input gram were longer than 32 entries and were cut"
    bar.write("event", {"step": 0, "message": message})
    bar.close()
    told = [line for line in shown.getvalue().splitlines() if "of 80 samples" in line or "were cut" in line]
    assert len(told) == num_lines
    assert is_terminal or told == [f"step 0: {message}"]


def test_the_progress_bar_shortens_a_line_that_names_a_thousand_samples() -> None:
    shown = io.StringIO()
    bar = ProgressBar(10, 0, Console(file=shown, width=500, color_system=None))
    bar.write("event", {"step": 5, "message": f"not finite, skipped: batch 4, samples {'00000001 ' * 1000}"})
    bar.close()
    [line] = [line for line in shown.getvalue().splitlines() if "not finite" in line]
    assert len(line) < 400
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


def test_a_damaged_line_stays_and_half_a_line_at_the_end_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n\xff\n{"kind": "train", "step": 9}\n{"kind": "train", "step": 1}')
    JsonLines(path, 4).close()
    assert path.read_bytes() == b'{"kind": "train", "step": 1}\n\xff\n'


def test_metrics_that_cannot_be_written_are_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.jsonl: cannot be written \(No such file.*free space"):
        JsonLines(tmp_path / "none" / "metrics.jsonl", 0)


def test_an_event_is_added_behind_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_event(path, 2, "forked")
    with path.open("a") as file:
        file.write('{"kind": "tr')
    append_event(path, 3, "taken over")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records == [
        {"kind": "event", "step": 2, "message": "forked"},
        {"kind": "event", "step": 3, "message": "taken over"},
    ]


def test_tensorboard_has_every_number_of_a_record_and_no_word_and_no_step(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path / "new" / "folder", 0)
    sink.write("save", {"step": 3, "seconds": 0.5, "num_bytes": 7, "error": "full"})
    sink.rewind(3)
    sink.write("save", {"step": 4, "seconds": 0.25, "num_bytes": 7, "error": ""})
    sink.close()
    events = EventAccumulator(str(tmp_path / "new" / "folder")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["save/num_bytes", "save/seconds"]
    assert [(event.step, event.value) for event in events.Scalars("save/seconds")] == [(3, 0.5), (4, 0.25)]
    assert abs(events.Scalars("save/seconds")[0].wall_time - time.time()) < 600


def shown_by(total_steps: int, resumed_step: int, *records: tuple[str, dict]) -> str:
    shown = io.StringIO()
    bar = ProgressBar(total_steps, resumed_step, Console(file=shown, width=120, force_terminal=True, color_system=None))
    for kind, record in records:
        if kind == "rewind":
            bar.rewind(record["step"])
        else:
            bar.write(kind, record)
    bar.close()
    return shown.getvalue()


def test_the_progress_bar_begins_where_the_run_resumes_and_goes_back_with_it() -> None:
    assert "6/10 " in shown_by(10, 6)
    told = shown_by(10, 6, ("rewind", {"step": 4}))
    assert told.rindex("4/10") > told.rindex("6/10")


def test_a_finished_progress_bar_says_how_long_it_took() -> None:
    shown, clock = io.StringIO(), SimpleNamespace(now=0.0)
    console = Console(file=shown, width=120, force_terminal=True, color_system=None, get_time=lambda: clock.now)
    bar = ProgressBar(10, 0, console)
    clock.now = 65.0
    bar.write("train", {"step": 10, "loss": 0.25, "samples_per_second": 321.0, "data_wait_share": 0.5})
    bar.close()
    assert "0:01:05" in shown.getvalue()


def test_what_happened_is_printed_and_what_went_well_is_not() -> None:
    told = shown_by(
        10,
        0,
        ("event", {"step": 3, "message": "went back [/b] \x1b[2J"}),
        ("save", {"step": 4, "error": "", "seconds": 1.0}),
        ("save", {"step": 5, "error": "disk is full"}),
        ("evaluation", {"step": 6, "samples": 9, "label/accuracy": 0.5, "summary": "label 50%"}),
    )
    assert "step 3: went back [/b]" in told
    assert "\x1b[2J" not in told
    assert "step 4" not in told
    assert "step 5: disk is full" in told
    assert "step 6: label 50%" in told
    assert "samples 9" not in told


def test_a_line_of_the_progress_bar_that_is_short_enough_is_printed_whole() -> None:
    for length, is_cut in ((300, False), (301, True)):
        words = "x" * (length - len("step 5: "))
        told = shown_by(10, 0, ("event", {"step": 5, "message": words})).replace("\n", "")
        assert ("more characters" in told) is is_cut
        assert ("(1 more characters" in told) is is_cut


def test_a_file_of_events_is_named_by_the_time_it_was_made(tmp_path: Path) -> None:
    TensorBoard(tmp_path, 0).close()
    [path] = tmp_path.iterdir()
    assert abs(int(path.name.split(".")[3]) - time.time()) < 600
