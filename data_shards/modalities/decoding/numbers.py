"""Files of plain numbers to arrays: npy, npz and safetensors, never a pickle."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from data_shards.files.quoting import cut, listed, shown

MAX_BYTES = 1 << 28
"""An array of more decoded bytes is refused: 22 million points of x, y and z in float32."""
MAGIC_PREFIX = npy.MAGIC_PREFIX
# Not Python, though it looks like it: what evaluates it can be made to need any memory.
_SHAPE = re.compile(r"""['"]shape['"] *: *\(([-0-9, ]*)\)""")
_ORDER = re.compile(r"""['"]fortran_order['"] *: *(True|False)""")
_KIND = re.compile(r"""['"]descr['"] *: *['"]([<>|=]?[A-Za-z][0-9]{0,9})['"]""")


def numbers(data: bytes | memoryview) -> NDArray[np.generic]:
    """Return the array of a file of real numbers, whatever the member is called; ValueError says what is wrong.

    Reads npy, and npz or safetensors that hold one array.
    """
    view = memoryview(data)
    start = bytes(view[:6])
    if start == MAGIC_PREFIX:
        array = npy_array(view)
    elif start[:4] == b"PK\x03\x04":
        array = npz_array(view)
    # safetensors has no magic: eight bytes of length, then a header in JSON.
    elif bytes(view[8:9]) == b"{":
        array = _safetensors(view)
    else:
        raise ValueError("not an array; expected npy, npz or safetensors")
    if array.dtype.kind not in "fiub" or not array.size:
        raise ValueError(f"array of shape {cut(str(array.shape))} of {cut(str(array.dtype))}; expected real numbers")
    if array.nbytes > MAX_BYTES:
        raise ValueError(f"array of {array.nbytes} bytes; at most {MAX_BYTES} are decoded")
    return array


def finite(values: NDArray[np.float32], policy: str, what: str = "array") -> NDArray[np.float32]:
    """Return values without NaN and infinity: zeros in their places by the policy zero, ValueError by refuse.

    By the policy keep all that is not finite is NaN.
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return values
    if policy == "refuse":
        raise ValueError(
            f"{what} with {int(bad.sum())} of {bad.size} values that are NaN or infinite; nan=zero takes 0"
        )
    return np.where(bad, np.float32(np.nan if policy == "keep" else 0), values)


def _safetensors(view: memoryview) -> NDArray[np.generic]:
    try:
        tensors = load(bytes(view))
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"corrupt safetensors file ({cut(str(error))})") from error
    if len(tensors) != 1:
        raise ValueError(f"safetensors file has the tensors {listed(sorted(tensors))}; expected one")
    array: NDArray[np.generic] = next(iter(tensors.values()))
    return array


def npy_array(view: memoryview) -> NDArray[np.generic]:
    """Return the array of a .npy file without a copy; never a pickle, never more memory than the file has bytes."""
    # Two bytes of version, then the length of the header in two bytes, or from version 2 on in four.
    start = 10 if bytes(view[6:7]) == b"\x01" else 12
    begin = start + int.from_bytes(view[8:start], "little")
    header = bytes(view[start : min(begin, 1 << 16)]).decode("latin-1")
    if len(view) < begin or not 1 <= view[6] <= 3:
        raise ValueError("corrupt .npy header")
    payload = view[begin:]
    shape, fortran, dtype = _claimed(header)
    if dtype.hasobject:
        raise ValueError(".npy file holds Python objects; they are never unpickled")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(payload):
        raise ValueError(
            f".npy file claims shape {cut(str(shape))} of {cut(str(dtype))}, {len(payload)} bytes are there"
        )
    flat = np.frombuffer(payload, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _claimed(header: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, whether its first index varies fastest, and type, as numpy's own header has them."""
    found = [pattern.search(header) for pattern in (_SHAPE, _ORDER, _KIND)]
    if None in found:
        raise ValueError(f"corrupt .npy header, or no array of plain numbers: {shown(header)}")
    numbers, fortran, kind = (match[1] for match in found if match)
    try:
        return tuple(int(word) for word in numbers.split(",") if word.strip()), fortran == "True", np.dtype(kind)
    except (ValueError, TypeError) as error:
        raise ValueError(f"corrupt .npy header ({cut(str(error))})") from error


def npz_array(view: memoryview, preferred: str = "") -> NDArray[np.generic]:
    """Return the array of that name of a .npz file, or its only one; never a pickle."""
    with npz_archive(view) as archive:
        names = archive.namelist()
        name = f"{preferred}.npy" if f"{preferred}.npy" in names or len(names) != 1 else names[0]
        if name not in names:
            raise ValueError(
                f".npz file has the arrays {listed(names)}; expected one{preferred and f' named {preferred}'}"
            )
        return npy_array(memoryview(npz_entry(archive, name)))


@contextmanager
def npz_archive(content: bytes | memoryview) -> Iterator[zipfile.ZipFile]:
    """Give a .npz file as the archive that it is; ValueError where it is damaged, also while the block reads it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield archive
    # zipfile says NotImplementedError of a compression that it does not know, RuntimeError of an encrypted file.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, zlib.error) as error:
        raise ValueError(f"corrupt .npz file ({cut(str(error))})") from error


def npz_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the .npy file of that name in a .npz file."""
    entry = archive.getinfo(name)
    if entry.file_size > MAX_BYTES:
        raise ValueError(f".npz file claims an array of {entry.file_size} bytes; at most {MAX_BYTES} are read")
    # The others may ask for gigabytes to unpack a few bytes; numpy writes none of them.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(".npz file is packed in another way than by deflate; write it by numpy")
    with archive.open(entry) as file:
        # Bounded by what the directory claims: a bomb that lies there ends in a checksum error.
        return file.read()
