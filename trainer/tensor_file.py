"""Tensors in one safetensors file: written with their hash in one pass and made durable, read by parts.

The format is https://huggingface.co/docs/safetensors: a length, a JSON header, the bytes. It is written here rather
than by the library because that would read every byte a second time to hash it and cannot fsync.
"""

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from data_shards.json_file import parse_object, typed

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_CHUNK_BYTES = 8 << 20
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


@dataclass(frozen=True)
class FileRecord:
    """What a file must be to be whole."""

    num_bytes: int
    """Its size."""
    xxh3: str
    """XXH3-64 of its bytes, hexadecimal."""


def write(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
    """Write CPU tensors to a new file that is on the disk when this returns; OSError as the disk has it."""
    header: dict[str, object] = {}
    offset = 0
    for name, tensor in tensors.items():
        stop = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the bytes of the first tensor begin at a multiple of 8
    digest = xxhash.xxh3_64()
    with path.open("xb") as file:
        for content in (struct.pack("<Q", len(text)), text, *map(_bytes, tensors.values())):
            view = memoryview(content)  # type: ignore[arg-type]  # bytes or an array
            for start in range(0, len(view), _CHUNK_BYTES):
                chunk = view[start : start + _CHUNK_BYTES]
                digest.update(chunk)
                file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        return FileRecord(file.tell(), digest.hexdigest())


def examine(path: Path) -> FileRecord:
    """Return size and hash of a file as it is now."""
    digest, num_bytes = xxhash.xxh3_64(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return FileRecord(num_bytes, digest.hexdigest())


class TensorFile:
    """The tensors of one file; a read touches only its part. ValueError names a file that is not what it says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries, self._data_start = _header(path)

    def names(self) -> list[str]:
        """Return the names of the tensors."""
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name].shape

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements [start, stop) of the flattened tensor; ValueError where it has fewer."""
        entry = self._entries[name]
        count = math.prod(entry.shape)
        stop = count if stop is None else stop
        if not 0 <= start <= stop <= count:
            raise ValueError(
                f"{self._path}: {name} has {count} elements, {list(entry.shape)}; asked for {start} to {stop}"
            )
        dtype = _DTYPES[entry.dtype]
        offset = self._data_start + entry.data_offsets[0] + start * dtype.itemsize
        data = np.fromfile(self._path, dtype=np.uint8, count=(stop - start) * dtype.itemsize, offset=offset)
        if len(data) != (stop - start) * dtype.itemsize:
            raise ValueError(f"{self._path}: became shorter while it was read")
        return torch.from_numpy(data).view(dtype) if len(data) else torch.empty(0, dtype=dtype)

    def read_all(self) -> dict[str, Tensor]:
        """Return every tensor in its shape."""
        return {name: self.read(name).view(entry.shape) for name, entry in self._entries.items()}


@dataclass(frozen=True)
class _Entry:
    """The header's entry of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, ...]


def _header(path: Path) -> tuple[dict[str, _Entry], int]:
    """Return the tensors that a file has, all within its bytes, and where the first byte of them is."""
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            content = parse_object(file.read(min(length, _MAX_HEADER_BYTES)))
        content.pop("__metadata__", None)
        entries = {name: typed(_Entry, fields, name) for name, fields in content.items()}
        _check(entries, num_bytes - _LENGTH_BYTES - length)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path}: is not a safetensors file, or was damaged ({error}); copy it again") from error
    return entries, _LENGTH_BYTES + length


def _check(entries: dict[str, _Entry], num_bytes: int) -> None:
    """Raise ValueError unless the tensors lie one behind the other and fill the bytes, as the format wants it."""
    begin = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in _DTYPES:
            raise ValueError(f"{name}: type {entry.dtype!r}, known are {', '.join(_DTYPES)}")
        if not all(0 <= length < 2**31 for length in entry.shape):
            raise ValueError(f"{name}: shape {list(entry.shape)}")
        end = begin + math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize
        if entry.data_offsets != (begin, end):
            raise ValueError(f"{name}: lies at {list(entry.data_offsets)}, expected {[begin, end]}")
        begin = end
    if begin != num_bytes:
        raise ValueError(f"its tensors have {begin} bytes, it holds {num_bytes}")


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
