"""What a run remembers of itself is read as far as it can be; damage is told once and ends nothing."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from data_shards.files import history


@dataclass(frozen=True)
class Note:
    name: str


@pytest.fixture(autouse=True)
def untold() -> None:
    """Each test is a process that has told nothing so far."""
    history.tell.cache_clear()


def test_a_damaged_entry_is_none_and_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "note.json"
    assert history.entry(Note, path) is None
    assert capfd.readouterr().err == "", "what is not there is not damaged"
    path.write_text('{"name": "a"}')
    assert history.entry(Note, path) == Note("a")
    path.write_text("")
    for _ in range(2):
        assert history.entry(Note, path) is None
    told = capfd.readouterr().err
    assert told.count("note.json") == told.count("\n") == 1
    assert told.startswith("perceiver: ")


def test_the_sound_lines_of_a_damaged_file_are_read_and_the_others_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    assert history.lines(path) == []
    path.write_bytes(b'{"step": 1, "kind": "train"}\n\xff\n{"step": 2, "kind": "train"}\n\n')
    assert [line["step"] for line in history.lines(path)] == [1, 2]
    assert "2 of 4 lines cannot be read" in capfd.readouterr().err


def test_a_last_line_without_an_end_is_left_out_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "kind": "train"}\n{"step": 2, "ki')
    assert [line["step"] for line in history.lines(path)] == [1]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "is_sound"),
    [
        ('{"step": 0, "kind": "train"}', True),
        ('{"step": 1.5, "kind": "a", "loss": null, "good": true}', True),
        ('{"step": 9223372036854775807, "kind": "a"}', True),
        ('{"step": 9223372036854775808, "kind": "a"}', False),
        ('{"step": 1, "kind": "a", "count": 9223372036854775807}', True),
        ('{"step": 1, "kind": "a", "count": -9223372036854775808}', False),
        ('{"step": 1, "kind": "a", "loss": 1e300}', True),
        ('{"step": -1, "kind": "a"}', False),
        ('{"step": true, "kind": "a"}', False),
        ('{"step": "1", "kind": "a"}', False),
        ('{"step": NaN, "kind": "a"}', False),
        ('{"step": Infinity, "kind": "a"}', False),
        ('{"kind": "a"}', False),
        ('{"step": 1}', False),
        ('{"step": 1, "kind": 2}', False),
        ("[1]", False),
        ("", False),
    ],
)
def test_a_record_has_a_step_a_kind_and_numbers_that_a_reader_can_hold(line: str, is_sound: bool) -> None:
    assert (history.record_of(line.encode()) is not None) == is_sound


def test_what_is_told_is_one_line_without_control_characters(capfd: pytest.CaptureFixture[str]) -> None:
    history.tell("a\x1b[2J\nb")
    assert capfd.readouterr().err == "perceiver: a\\x1b[2J\\nb\n"


@pytest.mark.parametrize("block_bytes", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize(
    "content", [b"", b"one", b"one\n", b"\n\none\ntwo\n", b"one\ntwo\nthe third is cut", b"a" * 40 + b"\nb"]
)
def test_the_lines_of_a_file_come_backwards_whatever_its_blocks_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, block_bytes: int
) -> None:
    monkeypatch.setattr(history, "_BLOCK_BYTES", block_bytes)
    (tmp_path / "lines").write_bytes(content)
    assert list(history.newest_first(tmp_path / "lines")) == history.split(tmp_path / "lines")[::-1]
    assert list(history.newest_first(tmp_path / "none")) == []


def test_of_a_long_file_only_its_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: who reads it all is killed
        file.seek(0, 2)
        file.write(b"\nthe last\n")
    assert next(history.newest_first(path)) == b"the last\n"
