"""Vectors of samples as one array: npy with its keys beside it, or safetensors with them in its metadata."""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from safetensors.numpy import load, save

from data_shards.files.quoting import counted

FORMATS = (".safetensors", ".npy")
NAME = "latents"
_MOST_HEADER_BYTES = 100_000_000
"""What readers of safetensors accept."""


def refuse_other(out: Path) -> None:
    """Raise ValueError where the name says no format."""
    if out.suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends in {' or '.join(FORMATS)}")


def keys_path(out: Path) -> Path:
    """Return the file with the keys of an npy file, in the order of its rows."""
    return out.with_name(f"{out.stem}.keys.json")


def part(vectors: np.ndarray, keys: Sequence[str]) -> bytes:
    """Return the content of a part."""
    # Safetensors hold numbers only: the keys travel as the bytes of their JSON.
    return bytes(save({NAME: vectors, "keys": np.frombuffer(json.dumps(keys).encode(), np.uint8)}))


def num_rows(parts: Sequence[Path]) -> int:
    """Return how many samples the parts have."""
    return sum(len(keys) for _, keys in _read(parts))


def join(parts: Sequence[Path], out: Path, name: Path) -> None:
    """Write the vectors of all parts as one array into `out`, which takes the name `name`."""
    # Twice over the parts, since the shape comes first in a file; the vectors of one part at a time are in memory.
    keys = [key for _, of_part in _read(parts) for key in of_part]
    first, _ = next(_read(parts))
    shape = (len(keys), *first.shape[1:])
    with out.open("wb") as file:
        if name.suffix == ".npy":
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            keys_path(name).write_text(json.dumps(keys) + "\n")
        else:
            file.write(_header(shape, keys, name))
        for vectors, _ in _read(parts):
            file.write(vectors.astype("<f4").tobytes())


def _header(shape: Sequence[int], keys: Sequence[str], name: Path) -> bytes:
    tensor = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * int(np.prod(shape))]}
    header = json.dumps({"__metadata__": {"keys": json.dumps(keys)}, NAME: tensor}).encode()
    # Eight bytes as the format asks: what follows lies at a multiple of its type.
    header += b" " * (-len(header) % 8)
    if len(header) > _MOST_HEADER_BYTES:
        raise ValueError(f"{name}: the keys of {counted(len(keys), 'sample')} are too long for its header; write .npy")
    return struct.pack("<Q", len(header)) + header


def _read(parts: Sequence[Path]) -> Iterator[tuple[np.ndarray, list[str]]]:
    for path in parts:
        found = load(path.read_bytes())
        yield found[NAME], json.loads(found["keys"].tobytes())
