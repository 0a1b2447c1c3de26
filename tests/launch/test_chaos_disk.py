"""The small disk of a disturbed run is really full while it is filled, and what it held stays."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.chaos.disk import filled, small_disk

Commands = Callable[..., Callable[[str], list[str]]]


def test_a_filled_disk_takes_no_byte_and_what_it_held_outlives_it(tmp_path: Path) -> None:
    (tmp_path / "like").mkdir()
    with small_disk(tmp_path / "run", like=tmp_path / "like") as ballast:
        if ballast is None:
            pytest.skip("this user may not mount a disk")
        (tmp_path / "run" / "before").write_bytes(b"kept")
        with filled(ballast), pytest.raises(OSError, match="No space left") as refusal:
            (tmp_path / "run" / "during").write_bytes(b"refused")
        assert refusal.value.errno == errno.ENOSPC
        (tmp_path / "run" / "after").write_bytes(b"kept")
    assert not (tmp_path / "run").is_mount()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == {
        "before": b"kept",
        "during": b"",
        "after": b"kept",
    }


def test_a_run_that_is_too_large_for_memory_gets_no_disk_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "like").mkdir()
    with (tmp_path / "like" / "large").open("wb") as file:
        file.truncate(1 << 30)
    with small_disk(tmp_path / "run", like=tmp_path / "like") as ballast:
        assert ballast is None
    assert (tmp_path / "run").is_dir()


def test_a_disk_that_cannot_be_mounted_is_done_without(tmp_path: Path, commands: Commands) -> None:
    (tmp_path / "like").mkdir()
    asked = commands(mount="echo not permitted >&2; exit 32", umount="exit 1")
    with small_disk(tmp_path / "run", like=tmp_path / "like") as ballast:
        assert ballast is None
    assert asked("mount") == [f"-t tmpfs -o size={16 << 20} tmpfs {tmp_path / 'run'}"]
    assert asked("umount") == []


def test_a_system_without_the_command_has_no_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "like").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    with small_disk(tmp_path / "run", like=tmp_path / "like") as ballast:
        assert ballast is None


def test_a_disk_that_cannot_be_unmounted_stays_and_what_it_held_is_beside_it(
    tmp_path: Path, commands: Commands
) -> None:
    (tmp_path / "like").mkdir()
    commands(mount="exit 0", umount="exit 1")
    with small_disk(tmp_path / "run", like=tmp_path / "like") as ballast:
        assert ballast == tmp_path / "run" / ".ballast"
        (tmp_path / "run" / "link").symlink_to("nowhere")
    assert (tmp_path / "run").is_dir()
    assert (tmp_path / "run.kept" / "link").is_symlink()


@pytest.mark.parametrize(("num_bytes", "is_mounted"), [(352_321_536, True), (352_321_537, False)])
def test_a_run_gets_a_disk_for_three_of_it_up_to_a_gibibyte(
    tmp_path: Path, commands: Commands, num_bytes: int, is_mounted: bool
) -> None:
    (tmp_path / "like").mkdir()
    with (tmp_path / "like" / "file").open("wb") as file:
        file.truncate(num_bytes)
    asked = commands(mount="exit 0", umount="exit 1")
    with small_disk(tmp_path / "run", like=tmp_path / "like") as ballast:
        assert (ballast is not None) == is_mounted
    assert asked("mount") == [f"-t tmpfs -o size={1 << 30} tmpfs {tmp_path / 'run'}"] * is_mounted
