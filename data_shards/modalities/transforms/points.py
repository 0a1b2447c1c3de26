"""Point clouds to float32 (num_points, 3)."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.points import points
from data_shards.modalities.points import PointsConfig


def fit(
    data: bytes | memoryview, config: PointsConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.float32], int]:
    """Return points of the cloud, padded with zeros: random ones in training, evenly spaced in the file otherwise."""
    cloud = points(data, config.num_points, rng)
    kept = min(len(cloud), config.num_points)
    if rng is None:
        chosen = np.arange(kept) * len(cloud) // kept
    else:
        # Not shuffled, which costs a pass: a cloud is a set, and positions are its values.
        chosen = rng.choice(len(cloud), kept, replace=False, shuffle=False)
    padded = np.zeros(config.shape, np.float32)
    padded[:kept] = _normalized(_scaled(cloud[chosen], config.scale_jitter, rng), config.normalize)
    return padded, kept


def _scaled(cloud: NDArray[np.float32], jitter: float, rng: np.random.Generator | None) -> NDArray[np.float32]:
    if rng is None or not jitter:
        return cloud
    return cloud * rng.uniform(1 - jitter, 1 + jitter, (len(cloud), 1)).astype(np.float32)


def _normalized(cloud: NDArray[np.float32], method: str) -> NDArray[np.float32]:
    if method == "none":
        return cloud
    centred: NDArray[np.float32] = cloud - cloud.mean(axis=0)
    if method == "unit_cube":
        # A single point has no size.
        centred /= np.abs(centred).max() or 1
    return centred
