"""Files of point clouds and meshes to arrays of points."""

import numpy as np
from numpy.typing import NDArray

from data_shards.files.quoting import cut
from data_shards.modalities.decoding import meshes
from data_shards.modalities.decoding.numbers import MAGIC_PREFIX, MAX_BYTES, npy_array, npz_array
from data_shards.modalities.decoding.ply import read_ply

MAX_COLUMNS = 16
"""An array of more columns is no list of points; it may lie on its side."""
POINTS_OF_A_MESH = 2048


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
    if start == MAGIC_PREFIX:
        return _checked(npy_array(view))
    if start[:4] == b"PK\x03\x04":
        return _checked(npz_array(view, "points"))
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
