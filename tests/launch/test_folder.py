import os
from pathlib import Path

import pytest

from launch.folder import RunFolder, as_typed


def test_a_new_folder_is_made_with_its_parts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a run with 'quotes'")
    folder.create()
    parts = sorted(path.name for path in folder.path.iterdir())
    assert parts == ["checkpoints", "logs", "pictures", "tensorboard"]
    assert not folder.exists


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"is not empty and has no config.yaml"):
        RunFolder(tmp_path).create()
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/run: cannot be written \(Not a directory\)"):
        RunFolder(tmp_path / "file" / "run").create()


def test_a_path_is_told_as_it_would_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_typed(tmp_path / "runs" / "digits") == "runs/digits"
    assert as_typed(tmp_path) == "."
    assert as_typed(tmp_path.parent / "elsewhere") == str(tmp_path.parent / "elsewhere")


def test_a_disk_that_takes_no_more_is_told_before_anything_is_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_space()
    assert list(tmp_path.iterdir()) == []
    hidden = tmp_path / f"..space.{os.getpid()}.{os.getpid()}"
    hidden.symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"takes no more files \(No space left on device\); free space"):
        folder.check_space()
    assert list(tmp_path.iterdir()) == []
