"""What `perceiver data build` tells a person, and a program."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from launch.build import app


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures each of two classes, and a file that is none."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "in" / name / f"{number}.png").write_bytes(file.getvalue())
    (tmp_path / "in" / "cat" / "note.md").touch()
    return tmp_path / "in"


def test_what_is_passed_over_and_that_nothing_is_evaluated_is_told(folder: Path, tmp_path: Path) -> None:
    told = run("image-folder", folder, tmp_path / "out")
    assert "passed over, no image file (png, jpg, jpeg, webp, bmp): 1 .md\n" in told
    assert "no folder of a split: all 20 files are for training\n" in told
    assert "nothing can be evaluated; `perceiver data build SOURCE --help` says how" in told
    assert f"{tmp_path}/out/train: 20 samples in 1 shards" in told


def test_a_test_share_is_set_aside(folder: Path, tmp_path: Path) -> None:
    told = run("image-folder", folder, tmp_path / "out", "--test-share", "0.2")
    assert "set aside for the split test: 4 of 20 samples\n" in told
    assert "nothing can be evaluated" not in told
    assert f"{tmp_path}/out/test: 4 samples" in told


def test_a_program_reads_the_notes_in_the_json(folder: Path, tmp_path: Path) -> None:
    told = json.loads(run("image-folder", folder, tmp_path / "out", "--json"))
    assert told["splits"]["train"]["samples"] == 20
    assert any("1 .md" in note for note in told["notes"])


@pytest.mark.parametrize("source", ["table", "videos"])
def test_rows_without_a_label_are_counted(folder: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "table.csv").write_text("text,label\na,0\nb,\nc,nan\n")
    assert "label: 2 of 3 rows have none\n" in run(source, tmp_path / "table.csv", tmp_path / "out")
