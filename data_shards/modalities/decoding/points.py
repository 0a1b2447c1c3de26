"""Files of point clouds and meshes to arrays of points."""

import io
import re
import zipfile
import zlib
from math import prod

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from data_shards.files.quoting import cut, listed, shown
from data_shards.modalities.decoding import meshes
from data_shards.modalities.decoding.ply import read_ply

MAX_BYTES = 1 << 28
"""An array of more decoded bytes is refused: 22 million points of x, y and z in float32."""
MAX_COLUMNS = 16
"""An array of more columns is no list of points; it may lie on its side."""
POINTS_OF_A_MESH = 2048
# Not Python, though it looks like it: what evaluates it can be made to need any memory.
_SHAPE = re.compile(r"""['"]shape['"] *: *\(([-0-9, ]*)\)""")
_ORDER = re.compile(r"""['"]fortran_order['"] *: *(True|False)""")
_KIND = re.compile(r"""['"]descr['"] *: *['"]([<>|=]?[A-Za-z][0-9]{0,9})['"]""")


def points(
    data: bytes | memoryview, num_points: int = POINTS_OF_A_MESH, rng: np.random.Generator | None = None
) -> NDArray[np.float32]:
    """Return the cloud as float32, shape (P, 3): x, y, z; further columns of the file are left out.

    Reads npy, npz (its array "points", or its only one), PLY and OFF, whatever the member is called. A mesh gives
    `num_points` points of its surface, uniform by area, drawn from the generator; without one they are always the same.
    Raises ValueError where the bytes are none of these, hold no point, or hold a coordinate that is not finite.
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
    if cloud.ndim != 2 or not 3 <= cloud.shape[1] <= MAX_COLUMNS or cloud.dtype.kind not in "fiu":
        raise ValueError(
            f"point cloud has shape {cut(str(cloud.shape))} of {cut(str(cloud.dtype))}; expected a row a point, "
            f"(points, 3) or up to {MAX_COLUMNS} columns that begin with x, y and z, of real numbers"
        )
    if not len(cloud):
        raise ValueError("point cloud without points")
    if cloud.nbytes > MAX_BYTES:
        raise ValueError(f"point cloud of {cloud.nbytes} bytes; at most {MAX_BYTES} are decoded")
    # A number too large for float32 becomes infinite here and is refused below.
    with np.errstate(over="ignore"):
        xyz = np.ascontiguousarray(cloud[:, :3], dtype=np.float32)
    num_bad = int((~np.isfinite(xyz).all(axis=1)).sum())
    if num_bad:
        raise ValueError(f"point cloud has NaN or infinite coordinates in {num_bad} of {len(xyz)} points")
    return xyz


def _npy(view: memoryview) -> NDArray[np.generic]:
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


def _npz(view: memoryview) -> NDArray[np.generic]:
    try:
        with zipfile.ZipFile(io.BytesIO(view)) as archive:
            names = [entry.filename for entry in archive.infolist()]
            name = "points.npy" if "points.npy" in names or len(names) != 1 else names[0]
            entry = archive.getinfo(name)
            if entry.file_size > MAX_BYTES:
                raise ValueError(f".npz file claims an array of {entry.file_size} bytes; at most {MAX_BYTES} are read")
            # The others may ask for gigabytes to unpack a few bytes; numpy writes none of them.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(".npz file is packed in another way than by deflate; write it by numpy")
            with archive.open(name) as file:
                # Bounded by what the directory claims: a bomb that lies there ends in a checksum error.
                return _npy(memoryview(file.read()))
    except KeyError as error:
        raise ValueError(f".npz file has the arrays {listed(names)}; expected one named points") from error
    # zipfile says NotImplementedError of a compression that it does not know, RuntimeError of an encrypted file.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, zlib.error) as error:
        raise ValueError(f"corrupt .npz file ({cut(str(error))})") from error
