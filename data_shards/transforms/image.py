"""Images to uint8 (height, width, 3)."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards import decode
from data_shards.config import ImageConfig


def fit(
    data: bytes | memoryview, config: ImageConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.uint8], int]:
    """Return the image cut to the shape's aspect ratio about its centre, resized, and in training shifted."""
    pixels = resize(decode.pixels(data), config.height, config.width)
    if rng is not None and config.shift_pixels:
        down, right = rng.integers(-config.shift_pixels, config.shift_pixels, size=2, endpoint=True)
        pixels = shift(pixels, int(down), int(right))
    return pixels, config.height


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the largest centred part of the aspect ratio height / width, resized bilinearly with antialiasing."""
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    scale = min(rows / height, columns / width)
    top, left = (rows - scale * height) / 2, (columns - scale * width) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box))


def shift(pixels: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """Return the image moved by whole pixels; what comes in at the border is 0."""
    height, width = pixels.shape[:2]
    moved = np.zeros_like(pixels)
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = pixels[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved
