"""Files of point clouds and meshes to arrays of points, each its coordinates and then its features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_shards.files.quoting import counted, cut, listed
from data_shards.modalities.decoding.formats import meshes
from data_shards.modalities.decoding.formats.ply import read_ply
from data_shards.modalities.decoding.numbers import MAGIC_PREFIX, MAX_BYTES, npy_array, npz_array

MAX_COLUMNS = 16
"""An array of more columns than these, and than it has rows, is no list of points; it may lie on its side."""
# As many as ModelNet40's own files of points have.
POINTS_OF_A_MESH = 2048
XYZ = 3


@dataclass(frozen=True)
class Cloud:
    """The points of a file with all that it says of them."""

    values: NDArray[np.generic]
    """(P, columns): coordinates, then features."""
    features: tuple[str, ...] | None = None
    """Names of the columns behind x, y and z; None where the file has no names, and any number of coordinates."""


def points(
    data: bytes | memoryview, num_points: int = POINTS_OF_A_MESH, rng: np.random.Generator | None = None
) -> NDArray[np.float32]:
    """Return the coordinates of a cloud as float32, shape (P, 3): x, y, z. See cloud() and columns()."""
    return columns(cloud(data, num_points, rng), XYZ)


def cloud(
    data: bytes | memoryview, num_points: int = POINTS_OF_A_MESH, rng: np.random.Generator | None = None
) -> Cloud:
    """Return the cloud of a file.

    Reads npy, npz (its array "points", or its only one), PLY and OFF, whatever the member is called. A mesh gives
    `num_points` points of its surface, uniform by area, drawn from the generator; without one they are always the same.
    What its corners have beside their places is interpolated. Raises ValueError where the bytes are none of these.
    """
    view = memoryview(data)
    start = bytes(view[:6])
    if start == MAGIC_PREFIX:
        return Cloud(npy_array(view))
    if start[:4] == b"PK\x03\x04":
        return Cloud(npz_array(view, "points"))
    if start[:3] == b"ply":
        return _of_mesh(read_ply(bytes(view)), num_points, rng)
    if meshes.is_off(view):
        return _of_mesh(meshes.read_off(bytes(view)), num_points, rng)
    raise ValueError("not a point cloud; expected npy, npz, PLY or OFF")


def columns(
    cloud: Cloud, num_dimensions: int, features: Sequence[str] = (), num_features: int = 0
) -> NDArray[np.float32]:
    """Return the coordinates and those features that are asked for, by their names or by their number.

    ValueError where the cloud has no point, lacks some of them, or has one that is not finite.
    """
    asked = num_dimensions + (len(features) or num_features)
    _refuse_other(cloud, max(asked, MAX_COLUMNS), XYZ if asked == XYZ else 1)
    return _finite(_chosen(cloud, num_dimensions, features, num_features), num_dimensions)


def everything(cloud: Cloud) -> NDArray[np.float32]:
    """Return all columns; ValueError where the cloud has no point, or a place that is not finite."""
    _refuse_other(cloud, MAX_COLUMNS, 1)
    places = _finite(cloud.values[:, :XYZ], XYZ)
    with np.errstate(over="ignore"):
        return np.concatenate([places, np.asarray(cloud.values[:, XYZ:], np.float32)], axis=1)


def _chosen(cloud: Cloud, num_dimensions: int, features: Sequence[str], num_features: int) -> NDArray[np.generic]:
    there, found = cloud.values, cloud.values.shape[1]
    if cloud.features is None:
        asked = num_dimensions + (len(features) or num_features)
        # Names are given to columns by their order, so that one too many would shift them.
        if found < asked or (features and found > asked):
            named = f" ({listed(list(features))})" if features else ""
            raise ValueError(
                f"point cloud of {counted(found, 'column')}; expected {counted(num_dimensions, 'coordinate')} and "
                f"{counted(asked - num_dimensions, 'feature')}{named}"
            )
        return there[:, :asked]
    if num_dimensions > XYZ:
        raise ValueError(f"point cloud with x, y and z alone; expected {num_dimensions} coordinates")
    if len(cloud.features) < num_features or not set(features) <= set(cloud.features):
        wanted = listed(list(features)) if features else f"{num_features} of them"
        has = listed(list(cloud.features)) or "none"
        raise ValueError(f"point cloud with the features {has}; expected {wanted}")
    names = features or cloud.features[:num_features]
    return there[:, [*range(num_dimensions), *(XYZ + cloud.features.index(name) for name in names)]]


def _of_mesh(mesh: meshes.Mesh, num_points: int, rng: np.random.Generator | None) -> Cloud:
    if not len(mesh.triangles):
        return Cloud(mesh.vertices, mesh.features)
    # Without a generator always the same points: two evaluations of one checkpoint must agree.
    drawn = meshes.sample(mesh, num_points, rng or np.random.Generator(np.random.Philox(0)))
    return Cloud(drawn, mesh.features)


def _refuse_other(cloud: Cloud, most: int, least: int) -> None:
    values = cloud.values
    # Columns with names are surely columns.
    most = max(most, values.shape[0] - 1 if values.ndim else 0) if cloud.features is None else len(cloud.features) + XYZ
    if values.ndim != 2 or not least <= values.shape[1] <= most or values.dtype.kind not in "fiu":
        raise ValueError(
            f"point cloud has shape {cut(str(values.shape))} of {cut(str(values.dtype))}; expected a row a point, "
            f"(points, {least}) or up to {most} columns that begin with the coordinates, of real numbers"
        )
    if not len(values):
        raise ValueError("point cloud without points")
    if values.nbytes > MAX_BYTES:
        raise ValueError(f"point cloud of {values.nbytes} bytes; at most {MAX_BYTES} are decoded")


def _finite(values: NDArray[np.generic], num_dimensions: int) -> NDArray[np.float32]:
    # A number too large for float32 becomes infinite here and is refused below.
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, dtype=np.float32)
    for what, part in (("coordinates", numbers[:, :num_dimensions]), ("features", numbers[:, num_dimensions:])):
        num_bad = int((~np.isfinite(part).all(axis=1)).sum())
        if num_bad:
            raise ValueError(f"point cloud has NaN or infinite {what} in {num_bad} of {len(numbers)} points")
    return numbers
