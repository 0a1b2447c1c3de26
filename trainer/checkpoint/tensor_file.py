"""Tensors in one safetensors file: written, hashed and synced in one pass; read in parts.

The format is https://huggingface.co/docs/safetensors: a length, a JSON header, the bytes. It is written here rather
than by the library because that would read every byte a second time to hash it and cannot fsync.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import xxhash
from torch import Tensor

from data_shards.files.typed_json import parse_object, typed
from trainer.checkpoint.manifest import FileRecord

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
_NO_METADATA: Mapping[str, str] = MappingProxyType({})
_CHUNK_BYTES = 8 << 20
_SMALL_BYTES = 1 << 20
"""Tensors of less are written several at once."""
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The largest header that the format allows."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = _NO_METADATA) -> FileRecord:
    """Write CPU tensors to a new file that is on the disk when this returns; OSError as the disk has it."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        stop = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the bytes of the first tensor begin at a multiple of 8
    digest = xxhash.xxh3_64()
    # x: nothing that is there is overwritten. Two ranks that wrote one file would damage a checkpoint unseen.
    with path.open("xb", buffering=_SMALL_BYTES) as file:
        for content in (struct.pack("<Q", len(text)), text, *map(_bytes, tensors.values())):
            view = memoryview(content)  # type: ignore[arg-type]  # bytes or an array
            for start in range(0, len(view), _CHUNK_BYTES):
                chunk = view[start : start + _CHUNK_BYTES]
                digest.update(chunk)
                file.write(chunk)
        file.flush()
        # Before the manifest names the file: file systems may write a rename to the disk before the bytes.
        os.fsync(file.fileno())
        return FileRecord(file.tell(), digest.hexdigest())


@dataclass(frozen=True)
class Entry:
    """The header's entry of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The header of a file."""

    entries: dict[str, Entry]
    """The entries by the names of their tensors, all within the file's bytes."""
    data_start: int
    """The position of their first byte."""


class TensorFile:
    """The tensors of one file; a read touches only its part. ValueError names a file that is not what it says.

    A rank that received the header from another rank need not open the file for it.
    """

    def __init__(self, path: Path, header: Header | None = None) -> None:
        self._path = path
        self.header = header or _header(path)
        """The header of the file."""
        self._entries, self._data_start = self.header.entries, self.header.data_start

    def names(self) -> list[str]:
        """Return the names of the tensors."""
        return list(self._entries)

    def empty(self, name: str) -> Tensor:
        """Return memory for a tensor of this name."""
        return torch.empty(self._entries[name].shape, dtype=_DTYPES[self._entries[name].dtype])

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
        try:
            data = _bytes_at(self._path, offset, (stop - start) * dtype.itemsize)
        except OSError as error:
            raise ValueError(f"{self._path}: cannot be read ({error.strerror})") from error
        if len(data) != (stop - start) * dtype.itemsize:
            raise ValueError(f"{self._path}: became shorter while it was read")
        return torch.from_numpy(data).view(dtype) if len(data) else torch.empty(0, dtype=dtype)

    def read_all(self) -> dict[str, Tensor]:
        """Return every tensor in its shape."""
        return {name: self.read(name).view(entry.shape) for name, entry in self._entries.items()}


class OpenTensors:
    """The tensors of the files of a checkpoint by kind and name. See trainer.optim.ownership.Saved."""

    def __init__(self, checkpoint: Path, files: Mapping[tuple[str, str], TensorFile]) -> None:
        self._checkpoint = checkpoint
        self._files = files

    def __call__(self, kind: str, name: str, start: int, stop: int, /) -> Tensor:
        """Return these elements of a flattened tensor; ValueError if they cannot be read."""
        if (kind, name) not in self._files:
            raise ValueError(f"{self._checkpoint}: has no tensor {name} of kind {kind}")
        return self._files[kind, name].read(name, start, stop)

    def kinds(self) -> set[str]:
        """Return the kinds of which there are tensors."""
        return {kind for kind, _ in self._files}

    def like(self, kind: str) -> dict[str, Tensor]:
        """Return by name tensors of the shapes and types that a kind has, without their values."""
        with torch.device("meta"):
            return {name: file.empty(name) for (of, name), file in self._files.items() if of == kind}


def _bytes_at(path: Path, offset: int, num_bytes: int) -> np.ndarray:
    """Return the bytes of a file from an offset on, fewer where it ends before: three calls, numpy makes seventeen."""
    data = np.empty(num_bytes, np.uint8)
    view = memoryview(data)  # type: ignore[arg-type]  # an array
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = 0
        # Linux reads at most 2 GiB per call, and a network disk may return less.
        while at < num_bytes and (count := os.preadv(descriptor, [view[at:]], offset + at)):
            at += count
    finally:
        os.close(descriptor)
    return data[:at]


def _header(path: Path) -> Header:
    """Return what a file says of its tensors, all of which lie within its bytes."""
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            # The length may be a lie: it must not become memory.
            content = parse_object(file.read(min(length, _MAX_HEADER_BYTES)))
        # Text for people, which other writers of the format add.
        content.pop("__metadata__", None)
        entries = {name: typed(Entry, fields, name) for name, fields in content.items()}
        _check(entries, num_bytes - _LENGTH_BYTES - length)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path}: is not a safetensors file, or was damaged ({error}); copy it again") from error
    return Header(entries, _LENGTH_BYTES + length)


def _check(entries: dict[str, Entry], num_bytes: int) -> None:
    """Raise ValueError unless the tensors lie one behind the other and fill the bytes, as the format wants it."""
    begin = 0
    # In the order of their bytes, which need not be that of the header.
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
    # As bytes: numpy has no bfloat16.
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
