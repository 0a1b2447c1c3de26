"""No sink can end a run: what one cannot take is told once, counted, and kept from no other."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from trainer.sinks.meter import Record
from trainer.sinks.sink_group import SinkGroup
from trainer.sinks.writers import JsonLines, ProgressBar

CONTINUES = "the run continues, and the next record is tried again"


class Broken:
    """Fails at everything, but for a record of step 3."""

    def __init__(self) -> None:
        self.taken: list[Record] = []

    def write(self, kind: str, record: Record) -> None:
        if record["step"] != 3:
            raise KeyError("[/b]\x1b")
        self.taken.append(record)

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:
        raise MemoryError

    def rewind(self, step: int) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise BrokenPipeError


def test_a_sink_that_fails_is_told_once_counted_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken()
    group = SinkGroup([broken, JsonLines(tmp_path / "metrics.jsonl", 0)])
    for step in (1, 2, 3):
        group.write("event", {"step": step, "message": "told"})
    group.draw("inputs", np.zeros((2, 2, 3), np.uint8), 3)
    group.rewind(2)
    group.close()
    assert broken.taken == [{"step": 3, "message": "told"}]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert capsys.readouterr().err.splitlines() == [
        r"perceiver: Broken failed (KeyError: '[/b]\x1b'); the run continues, and the next record is tried again",
        "perceiver: Broken failed 5 times in this start",
    ]


def test_a_sink_is_told_of_at_its_first_failure_by_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    group = SinkGroup([Broken(), Broken()])
    group.draw("inputs", np.zeros((2, 2, 3), np.uint8), 3)
    told = [f"perceiver: Broken failed (MemoryError: ); {CONTINUES}"] * 2
    assert capsys.readouterr().err.splitlines() == told
    group.rewind(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_that_is_gone_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr("sys.stderr", gone)
    SinkGroup([Broken()]).close()


@pytest.mark.parametrize("key", ["[/b]", "[red]x", "[link=file:///]", "a\x1b[2J", "\udcff", "a\nb"])
def test_the_progress_bar_shows_a_key_as_it_is_but_for_control_characters(key: str) -> None:
    shown = io.StringIO()
    bar = ProgressBar(10, 0, Console(file=shown, width=200, force_terminal=True, color_system=None))
    bar.write("event", {"step": 5, "message": f"not finite: {key}"})
    bar.write("save", {"step": 7, "error": key})
    bar.close()
    plain = key.encode("unicode_escape").decode()
    assert f"step 5: not finite: {plain}" in shown.getvalue()
    assert f"step 7: {plain}" in shown.getvalue()


def test_secrets_reach_no_sink(tmp_path: Path) -> None:
    group = SinkGroup([JsonLines(tmp_path / "metrics.jsonl", 0)])
    group.write("event", {"step": 1, "message": "https://user:word@host/0.tar?token=x: not fetched"})
    group.close()
    told = (tmp_path / "metrics.jsonl").read_text()
    assert "word" not in told
    assert "token" not in told
