"""Files are what the safetensors library writes and reads; parts are read by element; hashes tell every byte."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.tensor_file import TensorFile, examine, write

TENSORS = {
    "matrix": torch.arange(12, dtype=torch.float32).view(3, 4),
    "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
}


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    write(tmp_path / "file", TENSORS)
    read = load_file(tmp_path / "file")
    assert read.keys() == TENSORS.keys()
    assert all(read[name].dtype == TENSORS[name].dtype for name in TENSORS)
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)


def test_parts_are_read_from_what_the_library_wrote(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "file", metadata={"format": "pt"})
    file = TensorFile(tmp_path / "file")
    assert sorted(file.names()) == sorted(TENSORS)
    assert file.shape("matrix") == (3, 4)
    assert file.read("matrix", 3, 6).tolist() == [3.0, 4.0, 5.0]
    assert all(torch.equal(file.read(name).view(file.shape(name)), TENSORS[name]) for name in TENSORS)


def test_the_record_is_that_of_the_file_and_one_bit_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    record = write(path, TENSORS)
    assert record == examine(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert examine(path) != record


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "file", TENSORS)
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", TENSORS)
