"""One function says which checkpoint is the newest complete one; what only looks like one is none."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import rewrite, save

from trainer.checkpoint.names import MANIFEST, committed, complete, newest_step, problem

TENSORS = {"a": torch.arange(6.0).view(2, 3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (5, 400, 600):
        save(tmp_path, step, TENSORS)
    return tmp_path


def test_the_newest_is_that_of_the_highest_step_beyond_eight_digits_too(folder: Path) -> None:
    assert newest_step(folder) == 600
    save(folder, 99_999_999, TENSORS)
    save(folder, 100_000_000, TENSORS)
    assert newest_step(folder) == 100_000_000
    assert newest_step(folder / "none") == 0


@pytest.mark.parametrize(
    "how",
    ["no manifest", "empty manifest", "half a manifest", "no file", "short file", "nested", "no state", "no files"],
)
def test_what_a_fault_left_is_not_complete(folder: Path, how: str) -> None:
    newest = folder / "step_00000600"
    match how:
        case "no manifest":
            (newest / MANIFEST).unlink()
        case "empty manifest":
            (newest / MANIFEST).write_text("")
        case "half a manifest":
            (newest / MANIFEST).write_text((newest / MANIFEST).read_text()[:100])
        case "no state":
            (newest / MANIFEST).write_text("{}")
        case "no files":
            (newest / MANIFEST).write_text('{"state": {"step": 600}}')
        case "nested":
            (newest / MANIFEST).write_text("[" * 100_000)
        case "no file":
            next(newest.glob("exp_avg_sq*")).unlink()
        case "short file":
            path = next(newest.glob("exp_avg_sq*"))
            path.write_bytes(path.read_bytes()[:-1])
    assert newest_step(folder) == 400
    assert str(newest) in problem(newest)
    assert committed(folder)[-1] == newest


def test_copies_links_and_other_names_are_no_checkpoints(folder: Path) -> None:
    whole = folder / "step_00000600"
    for name in ("step_00000600.bak", "step_700", "step_0000000700", "step_", "step_00000x00", "my_step_00000700"):
        shutil.copytree(whole, folder / name)
    (folder / "step_00000800").write_text("a file")
    assert [path.name for path in committed(folder)] == ["step_00000005", "step_00000400", "step_00000600"]
    (folder / "step_00000900").symlink_to(whole)
    shutil.copytree(whole, folder / "step_00001000")
    assert newest_step(folder) == 600
    assert "is a link" in problem(folder / "step_00000900")
    assert "is of step 600" in problem(folder / "step_00001000")


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret", "weight-00000-of-00001.safetensors/..", "a\0b", ""])
def test_a_file_outside_of_the_checkpoint_is_refused(folder: Path, name: str) -> None:
    newest = folder / "step_00000600"
    (folder / "secret").write_bytes(b"x")
    rewrite(newest, "files", {name: {"num_bytes": 1, "xxh3": "0"}})
    assert "which no checkpoint has" in problem(newest)
    assert complete(folder)[-1].name == "step_00000400"


def test_a_file_that_is_a_link_is_refused(folder: Path) -> None:
    path = next((folder / "step_00000600").glob("weight*"))
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    assert "copy the file itself here" in problem(folder / "step_00000600")
