"""Point clouds to float32 (num_points, 3)."""

import numpy as np
from numpy.typing import NDArray

from data_shards import decode
from data_shards.config import PointsConfig


def fit(
    data: bytes | memoryview, config: PointsConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.float32], int]:
    """Return points of the cloud, padded with zeros: random ones in training, evenly spaced in the file otherwise."""
    cloud = decode.points(data)
    kept = min(len(cloud), config.num_points)
    if rng is None:
        chosen = np.arange(kept) * len(cloud) // kept
    else:
        chosen = rng.choice(len(cloud), kept, replace=False, shuffle=False)
    padded = np.zeros((config.num_points, 3), np.float32)
    padded[:kept] = cloud[chosen]
    return padded, kept
