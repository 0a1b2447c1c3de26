"""A disk that is full for a while costs no byte of a file that is appended to."""

from pathlib import Path

import pytest

from trainer.sinks.patient_file import PatientFile


def test_what_a_full_disk_does_not_take_is_written_once_there_is_room(tmp_path: Path) -> None:
    file = PatientFile(tmp_path / "lines")
    file.write(b"before\n")
    disk = file._file
    with Path("/dev/full").open("wb", buffering=0) as file._file:
        file.write(b"during\n")
        file.write(b"still\n")
    file._file = disk
    assert (tmp_path / "lines").read_bytes() == b"before\n"
    file.write(b"after\n")
    file.close()
    assert (tmp_path / "lines").read_bytes() == b"before\nduring\nstill\nafter\n"


def test_a_file_that_cannot_be_finished_says_so(tmp_path: Path) -> None:
    file = PatientFile(Path("/dev/full"))
    file.write(b"lost\n")
    with pytest.raises(OSError, match="No space left"):
        file.close()
