"""Files of point clouds to arrays."""

import io
from math import prod

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_BYTES = 1 << 30
"""A cloud of more decoded bytes is refused."""


def points(data: bytes | memoryview) -> NDArray[np.float32]:
    """Return the cloud as float32, shape (P, 3): x, y, z; further columns of the file are left out.

    Raises ValueError where the bytes are not a cloud, hold no point, or hold a coordinate that is not finite.
    """
    view = memoryview(data)
    if bytes(view[:6]) != npy.MAGIC_PREFIX:
        raise ValueError("not a point cloud; expected a .npy array")
    return _checked(_npy(view))


def _checked(cloud: NDArray[np.generic]) -> NDArray[np.float32]:
    if cloud.ndim != 2 or cloud.shape[1] < 3 or not np.issubdtype(cloud.dtype, np.number):
        raise ValueError(f"point cloud has shape {cloud.shape} of {cloud.dtype}; expected (points, 3) of numbers")
    if not len(cloud):
        raise ValueError("point cloud without points")
    xyz = np.ascontiguousarray(cloud[:, :3], dtype=np.float32)
    num_bad = int((~np.isfinite(xyz).all(axis=1)).sum())
    if num_bad:
        raise ValueError(f"point cloud has NaN or infinite coordinates in {num_bad} of {len(xyz)} points")
    return xyz


def _npy(view: memoryview) -> NDArray[np.generic]:
    """Return the array of a .npy file without a copy; never a pickle, never more memory than the file has bytes."""
    head = io.BytesIO(view[: 1 << 16])
    try:
        version = npy.read_magic(head)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(head)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise ValueError(f"corrupt .npy header ({error})") from error
    payload = view[head.tell() :]
    if dtype.hasobject:
        raise ValueError(".npy file holds Python objects; they are never unpickled")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(payload):
        raise ValueError(f".npy file claims shape {shape} of {dtype}, {len(payload)} bytes are there")
    flat = np.frombuffer(payload, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
