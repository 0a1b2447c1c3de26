"""Images to uint8 (height, width, 3)."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.image import pixels as decoded
from data_shards.modalities.image import ImageConfig
from data_shards.modalities.transforms.framing import cut, framed, random_box, usual_box, whole_box
from data_shards.modalities.transforms.randaugment import randaugment


def fit(
    data: bytes | memoryview, config: ImageConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.uint8], int]:
    """Return the image as uint8 of the section's shape, by its `fit`; in training varied at random."""
    pixels = decoded(data)
    if rng is None:
        return framed(pixels, usual_box(pixels, config), config), config.height
    return _varied(pixels, config, rng), config.height


def _varied(pixels: NDArray[np.uint8], config: ImageConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Crop, mirror, RandAugment, resize and shift, in the order of Perceiver's training code."""
    box = random_box(pixels, config.crop, rng) if config.crop else None
    if box is None:
        box = usual_box(pixels, config)
    if config.randaugment:
        # The operations see the part alone, at its own size.
        pixels = randaugment(cut(pixels, box), config.randaugment, rng)
        box = whole_box(pixels)
    pixels = framed(pixels, box, config)
    if config.flip and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if config.shift_pixels:
        down, right = rng.integers(-config.shift_pixels, config.shift_pixels, size=2, endpoint=True)
        pixels = shift(pixels, int(down), int(right))
    return pixels


def shift(pixels: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """Return the image moved by whole pixels; what comes in at the border is 0."""
    height, width = pixels.shape[:2]
    moved = np.zeros_like(pixels)
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = pixels[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved
