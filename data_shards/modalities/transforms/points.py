"""Point clouds to float32 (num_points, coordinates and features)."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.points import cloud, columns, everything
from data_shards.modalities.kinds.points import NORMAL, PointsConfig


def fit(
    data: bytes | memoryview, config: PointsConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.float32], int, bool]:
    """Return points of the cloud, padded with zeros: random ones in training, evenly spaced in the file otherwise.

    With their number, and whether the cloud is larger.
    """
    found = cloud(data, config.num_points, rng)
    if not config.num_dimensions:
        whole = everything(found)
        return whole, len(whole), False
    values = columns(found, config.num_dimensions, config.features, config.num_features)
    kept = min(len(values), config.num_points)
    if rng is None:
        # Over all of the file: its first points may be of one side of the object.
        chosen = np.arange(kept) * len(values) // kept
    else:
        # Not shuffled, which costs a pass: the order of points means nothing, and `permute` is for who wants another.
        chosen = rng.choice(len(values), kept, replace=False, shuffle=False)
    padded = np.zeros(config.shape, np.float32)
    padded[:kept] = _varied(values[chosen], config, rng)
    return padded, kept, len(values) > kept


def _varied(values: NDArray[np.float32], config: PointsConfig, rng: np.random.Generator | None) -> NDArray[np.float32]:
    """Return the points with other coordinates; of the features normals turn, and the rest stays."""
    places, features = values[:, : config.num_dimensions], values[:, config.num_dimensions :]
    if config.feature_divisors:
        features = np.asarray(features / np.asarray(config.feature_divisors), np.float32)
    if rng is not None:
        # Before it is normalized, as the first paper does (section 4.3).
        places = _scaled(places, config.scale_jitter, rng)
        if config.rotate != "none":
            places, features = _turned(places, features, config, rng)
        if config.scale:
            places = places * np.float32(rng.uniform(1 - config.scale, 1 + config.scale))
        if config.jitter:
            places = places + rng.normal(0, config.jitter, places.shape).astype(np.float32)
    places = _normalized(places, config.normalize)
    out = np.concatenate([places, features], axis=1)
    return out[rng.permutation(len(out))] if rng is not None and config.permute else out


def _scaled(places: NDArray[np.float32], jitter: float, rng: np.random.Generator) -> NDArray[np.float32]:
    if not jitter:
        return places
    return places * rng.uniform(1 - jitter, 1 + jitter, (len(places), 1)).astype(np.float32)


def _turned(
    places: NDArray[np.float32], features: NDArray[np.float32], config: PointsConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return places and normals after one rotation about the origin."""
    rotation = _any_rotation(config.num_dimensions, rng) if config.rotate == "any" else _about(config.rotate, rng)
    if set(NORMAL) <= set(config.features):
        normals = [config.features.index(name) for name in NORMAL]
        features = features.copy()
        features[:, normals] = features[:, normals] @ rotation.T
    return places @ rotation.T, features


def _any_rotation(num_dimensions: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a rotation, all equally probable: the orthogonal factor of Gaussian numbers, of determinant 1."""
    factor, triangle = np.linalg.qr(rng.normal(size=(num_dimensions, num_dimensions)))
    # Without the signs some rotations are more probable than others (arXiv math-ph/0609050, section 5).
    factor *= np.sign(np.diag(triangle))
    if np.linalg.det(factor) < 0:
        factor[:, 0] *= -1
    return factor.astype(np.float32)


def _about(axis: str, rng: np.random.Generator) -> NDArray[np.float32]:
    angle = rng.uniform(0, 2 * np.pi)
    first, second = (number for number in range(3) if number != "xyz".index(axis))
    rotation = np.eye(3)
    rotation[[first, second], [first, second]] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
    return rotation.astype(np.float32)


def _normalized(places: NDArray[np.float32], method: str) -> NDArray[np.float32]:
    if method == "none":
        return places
    centred: NDArray[np.float32] = places - places.mean(axis=0)
    if method == "unit_cube":
        # A single point has no size.
        centred /= np.abs(centred).max() or 1
    return centred
