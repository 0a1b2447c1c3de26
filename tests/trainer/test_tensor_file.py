"""Files are what the safetensors library writes and reads; parts are read by element; hashes tell every byte."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from trainer.checkpoint.manifest import examine
from trainer.checkpoint.tensor_file import OpenTensors, TensorFile, write

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


def test_a_read_never_leaves_its_tensor(tmp_path: Path) -> None:
    write(tmp_path / "file", TENSORS)
    file = TensorFile(tmp_path / "file")
    assert file.read("matrix", 12, 12).tolist() == []
    for start, stop in ((0, 13), (-1, 3), (5, 4), (12, 13), (0, 10**12)):
        with pytest.raises(ValueError, match=r"file: matrix has 12 elements"):
            file.read("matrix", start, stop)


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, fields: object, data: bytes) -> None:
    text = json.dumps(fields).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


LIES = [None, True, -8, 7, 1e300, "F32", "F3", [], [0], [0, 48, 96], [48, 0], [-8, 40], [0, 2**62], [2**40, 2**40 + 48],
        [2**70], ["3", "4"], [[3, 4]], {}, {"a": 1}, [1.0, 2.0]]  # fmt: skip


@pytest.mark.parametrize("key", ["dtype", "shape", "data_offsets"])
def test_a_header_that_lies_is_refused_with_the_files_name(tmp_path: Path, key: str) -> None:
    path = tmp_path / "file"
    write(path, TENSORS)
    fields, data = header(path)
    for lie in LIES:
        if lie != fields["matrix"][key]:
            with_header(path, {**fields, "matrix": {**fields["matrix"], key: lie}}, data)
            with pytest.raises(ValueError, match=rf"{path}: is not a safetensors file"):
                TensorFile(path)


@pytest.mark.parametrize(
    ("length", "is_refused"), [(0, False), (2**31 - 1, False), (2**31, True), (2**32, True), (-1, True)]
)
def test_an_axis_has_no_length_that_a_library_could_not_have(tmp_path: Path, length: int, is_refused: bool) -> None:
    # Without any bytes: beside an axis of 0 nothing else would tell.
    with_header(tmp_path / "file", {"empty": {"dtype": "F32", "shape": [0, length], "data_offsets": [0, 0]}}, b"")
    if is_refused:
        with pytest.raises(ValueError, match=rf"empty: shape \[0, {length}\]"):
            TensorFile(tmp_path / "file")
    else:
        assert TensorFile(tmp_path / "file").read_all()["empty"].shape == (0, length)


def test_tensors_that_overlap_and_bytes_of_nobody_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    for fields, data in (({"a": entry, "b": entry}, bytes(4)), ({"a": entry}, bytes(5)), ({"a": entry}, bytes(3))):
        with_header(path, fields, data)
        with pytest.raises(ValueError, match="file: is not a safetensors file"):
            TensorFile(path)
    for content in (
        b"",
        b"1234567",
        b"\xff" * 8,
        b"\xff" * 7 + b"\x00{}",
        (100_000).to_bytes(8, "little") + b"[" * 10**5,
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="file: is not a safetensors file"):
            TensorFile(path)
    with pytest.raises(ValueError, match=r"missing: cannot be read \(No such file"):
        TensorFile(tmp_path / "missing")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_a_sentence_or_gives_tensors_within_the_file(tmp_path: Path, seed: int) -> None:
    draws, path = random.Random(seed), tmp_path / "file"
    path.unlink(missing_ok=True)
    write(path, TENSORS)
    content = bytearray(path.read_bytes())
    for _ in range(draws.randint(1, 4)):
        match draws.choice(("flip", "digit", "cut", "insert")):
            case "flip":
                content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
            case "digit":
                content[draws.randrange(min(400, len(content)))] = ord(draws.choice('0123456789-[]{},:"'))
            case "cut":
                del content[max(1, draws.randrange(len(content))) :]
            case "insert":
                place = draws.randrange(len(content))
                content[place:place] = draws.randbytes(draws.randint(1, 8))
    path.write_bytes(content)
    try:
        tensors = TensorFile(path).read_all()
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= len(content)


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64])
def test_all_bytes_are_written_hashed_and_on_the_disk_however_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    whole = write(tmp_path / "whole", TENSORS)
    synced, fsync = list[int](), os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr("trainer.checkpoint.tensor_file._CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(os, "fsync", noted)
    assert write(tmp_path / "cut", TENSORS) == whole == examine(tmp_path / "cut")
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert synced == [whole.num_bytes]


@pytest.mark.parametrize("length", range(1, 9))
def test_the_bytes_of_the_first_tensor_begin_at_a_multiple_of_eight(tmp_path: Path, length: int) -> None:
    write(tmp_path / "file", {"x" * length: torch.arange(3.0)})
    content = (tmp_path / "file").read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    assert begin % 8 == 0
    assert content[begin:] == torch.arange(3.0).numpy().tobytes()
    assert content[begin - 8 : begin].strip() != b"", "no more blanks than it takes"


def test_a_tensor_that_is_not_contiguous_or_wants_a_gradient_is_written_as_it_is_seen(tmp_path: Path) -> None:
    turned = torch.arange(6.0).view(2, 3).T.requires_grad_()
    write(tmp_path / "file", {"turned": turned})
    assert torch.equal(TensorFile(tmp_path / "file").read_all()["turned"], turned.detach())


def test_a_part_is_read_by_elements_of_any_width(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.arange(10).to(dtype) for dtype in (torch.float64, torch.int16, torch.uint8)}
    write(tmp_path / "file", tensors)
    file = TensorFile(tmp_path / "file")
    for name, tensor in tensors.items():
        assert torch.equal(file.read(name, 4, 9), tensor[4:9])
        assert torch.equal(file.read(name, 4), tensor[4:])


def test_what_is_not_there_is_told_by_kind_and_name_and_a_file_that_is_gone_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, TENSORS, {"format": "pt"})
    assert header(path)[0]["__metadata__"] == {"format": "pt"}
    file = TensorFile(path)
    found = OpenTensors(tmp_path, {("weight", "matrix"): file, ("weight", "half"): file, ("rows", "count"): file})
    assert found.kinds() == {"weight", "rows"}
    like = found.like("weight")
    assert {name: (tuple(each.shape), each.dtype, each.device.type) for name, each in like.items()} == {
        "matrix": ((3, 4), torch.float32, "meta"),
        "half": ((2,), torch.bfloat16, "meta"),
    }
    assert found("weight", "matrix", 2, 4).tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match=f"{tmp_path}: has no tensor matrix of kind rows"):
        found("rows", "matrix", 0, 1)
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path}: cannot be read \(No such file or directory\)"):
        file.read("matrix")


def test_a_file_that_is_cut_while_it_is_open_is_told(tmp_path: Path) -> None:
    write(tmp_path / "file", TENSORS)
    file = TensorFile(tmp_path / "file")
    with (tmp_path / "file").open("r+b") as cut:
        cut.truncate(examine(tmp_path / "file").num_bytes - 30)
    with pytest.raises(ValueError, match="file: became shorter"):
        file.read_all()
