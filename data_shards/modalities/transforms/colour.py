"""Colour jitter of clips."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.transform_config import ColourConfig

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""The weights of red, green and blue in the luma of ITU-R BT.601."""


def jitter(frames: NDArray[np.uint8], config: ColourConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return frames (T, H, W, 3) with one random brightness, contrast and saturation for all of them."""
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * (
        config.brightness,
        config.contrast,
        config.saturation,
    )
    values = frames.astype(np.float32) * np.float32(brightness)
    grey = values @ GREY_WEIGHTS
    mean = grey.mean(dtype=np.float32)
    values = mean + (values - mean) * np.float32(contrast)
    grey = (mean + (grey - mean) * np.float32(contrast))[..., None]
    values = grey + (values - grey) * np.float32(saturation)
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
