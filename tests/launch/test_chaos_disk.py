"""The small disk of a disturbed run is really full while it is filled, and what it held stays."""

import errno
from pathlib import Path

import pytest

from launch.chaos_disk import filled, small_disk


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
