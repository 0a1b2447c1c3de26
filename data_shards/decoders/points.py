"""Files of point clouds and meshes to arrays of points."""

import io
import tokenize
import zipfile
import zlib
from math import prod

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from data_shards.decoders import meshes
from data_shards.decoders.ply import read_ply
from data_shards.shown import cut, listed

MAX_BYTES = 1 << 30
"""A cloud of more decoded bytes is refused."""
POINTS_OF_A_MESH = 2048


def points(
    data: bytes | memoryview, num_points: int = POINTS_OF_A_MESH, rng: np.random.Generator | None = None
) -> NDArray[np.float32]:
    """Return the cloud as float32, shape (P, 3): x, y, z; further columns of the file are left out.

    Reads npy, npz (its array "points", or its only one), PLY and OFF. A mesh gives `num_points` points of its surface,
    uniform by area, drawn from the generator; without one they are always the same. Raises ValueError where the bytes
    are none of these, hold no point, or hold a coordinate that is not finite.
    """
    view = memoryview(data)
    start = bytes(view[:6])
    if start == npy.MAGIC_PREFIX:
        return _checked(_npy(view))
    if start[:4] == b"PK\x03\x04":
        return _checked(_npz(view))
    if start[:3] == b"ply":
        return _of_mesh(read_ply(bytes(view)), num_points, rng)
    if meshes.is_off(view):
        return _of_mesh(meshes.read_off(bytes(view)), num_points, rng)
    raise ValueError("not a point cloud; expected npy, npz, PLY or OFF")


def _of_mesh(mesh: meshes.Mesh, num_points: int, rng: np.random.Generator | None) -> NDArray[np.float32]:
    if not len(mesh.triangles):
        return _checked(mesh.vertices)
    return _checked(meshes.sample(mesh, num_points, rng or np.random.Generator(np.random.Philox(0))))


def _checked(cloud: NDArray[np.generic]) -> NDArray[np.float32]:
    if cloud.ndim != 2 or cloud.shape[1] < 3 or cloud.dtype.kind not in "fiu":
        raise ValueError(
            f"point cloud has shape {cut(str(cloud.shape))} of {cut(str(cloud.dtype))}; "
            "expected (points, 3) of real numbers"
        )
    if not len(cloud):
        raise ValueError("point cloud without points")
    # A number too large for float32 becomes infinite here and is refused below.
    with np.errstate(over="ignore"):
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
    except (ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise ValueError(f"corrupt .npy header ({cut(str(error))})") from error
    payload = view[head.tell() :]
    if dtype.hasobject:
        raise ValueError(".npy file holds Python objects; they are never unpickled")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(payload):
        raise ValueError(
            f".npy file claims shape {cut(str(shape))} of {cut(str(dtype))}, {len(payload)} bytes are there"
        )
    flat = np.frombuffer(payload, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _npz(view: memoryview) -> NDArray[np.generic]:
    try:
        with zipfile.ZipFile(io.BytesIO(view)) as archive:
            names = [entry.filename for entry in archive.infolist()]
            name = "points.npy" if "points.npy" in names or len(names) != 1 else names[0]
            if archive.getinfo(name).file_size > MAX_BYTES:
                raise ValueError(f".npz file claims an array of {archive.getinfo(name).file_size} bytes")
            with archive.open(name) as file:
                # Bounded by what the directory claims: a bomb that lies there ends in a checksum error.
                return _npy(memoryview(file.read()))
    except KeyError as error:
        raise ValueError(f".npz file has the arrays {listed(names)}; expected one named points") from error
    # zipfile says NotImplementedError of a compression that it does not know, RuntimeError of an encrypted file.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, zlib.error) as error:
        raise ValueError(f"corrupt .npz file ({cut(str(error))})") from error
