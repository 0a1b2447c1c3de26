import errno
import os
from pathlib import Path

import pytest

from launch.lifecycle.run_folder import UNPUBLISHED, RunFolder, as_typed, existing, making, runs_at


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
    with pytest.raises(ValueError, match=r"no file can be written \(No space left on device\); free space"):
        folder.check_space()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["checkpoints", "attempts", "metrics.jsonl", "quarantine.jsonl", "stop", "pictures"])
def test_a_run_with_a_part_behind_a_link_to_nothing_is_refused_by_whoever_opens_it(tmp_path: Path, part: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config_path.write_text("")
    (folder.path / ".#config.yaml").symlink_to("me@host.1:2")  # as Emacs marks a file that it has open
    assert existing(folder) is folder
    there = folder.path / part
    if there.exists():
        there.rmdir()
    there.symlink_to(tmp_path / "disk")
    with pytest.raises(ValueError, match=rf"run/{part}: is a link to {tmp_path}/disk, which is not there; bring that"):
        existing(folder)
    (tmp_path / "disk").mkdir()
    assert existing(folder) is folder


def test_nothing_is_left_of_the_look_whether_a_folder_can_be_written(tmp_path: Path) -> None:
    for _ in range(2):
        RunFolder(tmp_path / "run").make()
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_every_part_of_a_run_has_a_place_of_its_own() -> None:
    folder = RunFolder(Path("run"))
    names = [name for name in dir(RunFolder) if name.endswith(("_path", "_folder"))]
    places = [place for name in names if isinstance(place := getattr(folder, name), Path)]
    assert len(set(places)) == len(places) > 15
    assert all(place.parent == folder.path for place in places)


def test_a_fresh_disk_is_no_foreign_folder_and_a_run_of_another_start_is_none(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    RunFolder(tmp_path).refuse_foreign()
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match="is not empty"):
        RunFolder(tmp_path).refuse_foreign()
    RunFolder(tmp_path).unfinished_path.touch()
    RunFolder(tmp_path).refuse_foreign()
    hidden = RunFolder(tmp_path / f"{UNPUBLISHED}here-1.new")
    hidden.create()
    hidden.config_path.touch()
    assert not hidden.exists
    with pytest.raises(ValueError, match=r"holds no run \(no config.yaml\)"):
        existing(hidden)


def test_runs_of_a_sweep_are_in_the_order_of_their_names_and_one_run_is_itself(tmp_path: Path) -> None:
    for name in ("d", "b", "c", "a"):
        RunFolder(tmp_path / name).create()
        RunFolder(tmp_path / name).config_path.touch()
    (tmp_path / "notes").mkdir()
    # A run is not searched for others.
    (tmp_path / "c" / "code").mkdir()
    (tmp_path / "c" / "code" / "config.yaml").touch()
    assert [run.path.name for run in runs_at(tmp_path)] == ["a", "b", "c", "d"]
    assert [run.path.name for run in runs_at(tmp_path / "c")] == ["c"]
    for path in (tmp_path / "notes", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="holds no run"):
            runs_at(path)


def test_a_full_disk_is_no_place_that_cannot_be_made(tmp_path: Path) -> None:
    for number, kind in ((errno.ENOSPC, OSError), (errno.ENOENT, ValueError)):
        with pytest.raises(kind) as told, making(tmp_path, "choose another"):
            raise OSError(number, os.strerror(number), str(tmp_path))
        assert ("choose another" in str(told.value)) == (kind is ValueError)
