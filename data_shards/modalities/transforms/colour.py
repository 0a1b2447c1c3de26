"""Colour jitter of images and clips, of any number of channels."""

import math

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.transform_config import ColourConfig

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""The weights of red, green and blue in the luma of ITU-R BT.601."""


def jitter(frames: NDArray[np.generic], config: ColourConfig, rng: np.random.Generator) -> NDArray[np.generic]:
    """Return frames (T, H, W, channels) with one random brightness, contrast, saturation and hue for all of them.

    Grey is the mean of the channels where these are not red, green and blue. Only bytes are kept in their range.
    """
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * (
        config.brightness,
        config.contrast,
        config.saturation,
    )
    # Rounded once, at the end: between the steps bytes would lose what the next one brings back.
    values: NDArray[np.float32] = frames.astype(np.float32) * np.float32(brightness)
    channels = frames.shape[-1]
    grey = values @ (GREY_WEIGHTS if channels == 3 else np.full(channels, 1 / channels, np.float32))
    mean = grey.mean(dtype=np.float32)
    values = mean + (values - mean) * np.float32(contrast)
    grey = (mean + (grey - mean) * np.float32(contrast))[..., None]
    values = grey + (values - grey) * np.float32(saturation)
    # Drawn last, and only where it is asked for: a section without it draws what it drew before there was a hue.
    if config.hue:
        values = values @ _turned(config.hue * rng.uniform(-1, 1))
    if frames.dtype != np.uint8:
        return values
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _turned(part: float) -> NDArray[np.float32]:
    """Return the matrix that turns colours about the axis of the greys by a part of the circle."""
    angle = 2 * math.pi * part
    # Rodrigues' formula for the axis (1, 1, 1): greys stay what they are.
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    matrix = np.full((3, 3), (1 - math.cos(angle)) / 3) + math.cos(angle) * np.eye(3) + math.sin(angle) * cross
    return matrix.astype(np.float32)
