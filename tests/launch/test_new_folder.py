"""A folder that a command writes has its name when it is whole; two commands at once do not touch each other's."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.files import atomic
from launch.networks.new_folder import new_folder


def hidden(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("."))


def written(out: Path, content: str, *, meanwhile: Callable[[], None] = lambda: None) -> None:
    with new_folder(out) as folder:
        (folder / "file").write_text(content)
        meanwhile()
        assert (folder / "file").read_text() == content, "another command leaves it as it is"


def test_of_two_at_once_the_first_to_end_has_the_name_and_the_other_is_told_in_one_sentence(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"out: is there already; another command has made it meanwhile"):
        written(out, "slow", meanwhile=lambda: written(out, "fast"))
    assert (out / "file").read_text() == "fast"
    assert hidden(tmp_path) == []


def test_what_is_there_is_refused_before_the_work_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyError

    out = tmp_path / "new" / "er" / "out"
    with pytest.raises(KeyError):
        written(out, "", meanwhile=fail)
    assert list(out.parent.iterdir()) == []
    out.symlink_to("nothing")
    with pytest.raises(ValueError, match="is there already"):
        written(out, "", meanwhile=lambda: pytest.fail("begun"))
    assert out.is_symlink()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL])
def test_a_folder_that_cannot_be_made_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def mkdir(path: Path, *_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    # As in /proc, where the kernel says that there is no such file.
    monkeypatch.setattr(Path, "mkdir", mkdir)
    out = tmp_path / "new" / "out"
    with pytest.raises(ValueError, match=rf"new/out: cannot be made \({os.strerror(number)}\); choose another folder"):
        written(out, "", meanwhile=lambda: pytest.fail("begun"))
    # Where its own folder is there already.
    with pytest.raises(ValueError, match=r"/out: cannot be made .*; choose another folder"):
        written(tmp_path / "out", "", meanwhile=lambda: pytest.fail("begun"))


def test_what_a_killed_command_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    host = socket.gethostname()
    # No process has a number beyond the limit of the kernel.
    dead, elsewhere = f".out.{host}.{1 << 30}.x", f".out.another-host.{1 << 30}.x"
    mine, others = f".out.{host}.{os.getpid()}.x", f".other.{host}.{1 << 30}.x"
    # The folder of a user that only looks like one.
    users = f"{1 << 30}.x"
    for name in (dead, elsewhere, mine, others, users):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    # What cannot be removed is left.
    no_folder = f".out.{host}.{1 << 30}.y"
    (tmp_path / no_folder).touch()
    with new_folder(tmp_path / "out"):
        pass
    assert hidden(tmp_path) == sorted([elsewhere, mine, others, no_folder])
    assert (tmp_path / users / "file").exists()


def test_an_error_of_the_disk_is_not_taken_for_another_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(_hidden: Path, _out: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "publish", publish)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "out", "")
    assert list(tmp_path.iterdir()) == []
