"""Tensors in one safetensors file: written with their hash in one pass and made durable, read by parts.

The format is https://huggingface.co/docs/safetensors: a length, a JSON header, the bytes. It is written here rather
than by the library because that would read every byte a second time to hash it and cannot fsync.
"""

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

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
    """The tensors of one file; a read touches only its part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            self._header = json.loads(file.read(length))
        self._header.pop("__metadata__", None)
        self._data_start = 8 + length

    def names(self) -> list[str]:
        """Return the names of the tensors."""
        return list(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._header[name]["shape"])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements [start, stop) of the flattened tensor."""
        entry = self._header[name]
        dtype = _DTYPES[entry["dtype"]]
        first, last = entry["data_offsets"]
        begin = first + start * dtype.itemsize
        end = last if stop is None else first + stop * dtype.itemsize
        data = np.fromfile(self._path, dtype=np.uint8, count=end - begin, offset=self._data_start + begin)
        return torch.from_numpy(data).view(dtype) if len(data) else torch.empty(0, dtype=dtype)


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
