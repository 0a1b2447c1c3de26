"""Clips to uint8 (num_frames, height, width, 3)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_shards import decode
from data_shards.config import VideoConfig
from data_shards.transforms.image import resize


def fit(
    data: bytes | memoryview, config: VideoConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.uint8], int]:
    """Return frames spread over the clip, resized; a shorter clip is padded with frames of zeros."""
    frames = decode.video(data, lambda available: _spread(available, config.num_frames, rng))
    clip = np.zeros((config.num_frames, config.height, config.width, 3), np.uint8)
    for place, frame in zip(clip, frames, strict=False):
        place[:] = resize(frame, config.height, config.width)
    return clip, len(frames)


def _spread(available: int, wanted: int, rng: np.random.Generator | None) -> Sequence[int]:
    """Return a frame of each of `wanted` equal parts of the clip: the middle one, in training a random one."""
    if available <= wanted:
        return range(available)
    within = np.full(wanted, 0.5) if rng is None else rng.random(wanted)
    places: list[int] = ((np.arange(wanted) + within) * available / wanted).astype(int).tolist()
    return places
