"""Images to the channels, the numbers and the size that are asked for, in this order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.channels import bytes_of, with_channels
from data_shards.modalities.decoding.image import picture
from data_shards.modalities.decoding.numbers import finite
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.transforms.colour import jitter
from data_shards.modalities.transforms.framing import cut, framed, random_box, usual_box, whole_box
from data_shards.modalities.transforms.randaugment import randaugment


def fit(
    data: bytes | memoryview, config: ImageConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.generic], int]:
    """Return the image in the section's shape, by its `fit`; in training varied at random."""
    found = picture(data)
    if config.values == "file":
        return found.values, len(found.values)
    pixels = _numbers(with_channels(found, config.num_channels, to_grey=config.to_grey), config)
    if rng is None:
        # The height is the length: an image always fills its array.
        return framed(pixels, usual_box(pixels, config), config), config.height
    return _varied(pixels, config, rng), config.height


def _numbers(pixels: NDArray[np.generic], config: ImageConfig) -> NDArray[np.generic]:
    """Return bytes, or float32 as the section's values say."""
    if config.dtype == "uint8":
        if pixels.dtype == np.uint16 and config.values == "bytes":
            raise ValueError("image of 16 bits a value; set values=unit for all of them, or upper_bits")
        return bytes_of(pixels)
    # What is too large for float32 becomes infinite.
    with np.errstate(over="ignore"):
        numbers = pixels.astype(np.float32)
    if config.values == "unit":
        numbers = _in_unit_range(numbers, pixels.dtype, config.value_range)
    return finite(numbers, config.nan, "image")


def _in_unit_range(
    numbers: NDArray[np.float32], dtype: "np.dtype[np.generic]", value_range: Sequence[float]
) -> NDArray[np.float32]:
    if not value_range and dtype not in (np.uint8, np.uint16):
        raise ValueError(f"image of {dtype} values; set value_range to those that become 0 and 1, or values=raw")
    low, high = value_range or (0, 255 if dtype == np.uint8 else 65535)
    # Exact for a range from 0: one rounding.
    return (numbers - np.float32(low)) / np.float32(high - low)


def _varied(pixels: NDArray[np.generic], config: ImageConfig, rng: np.random.Generator) -> NDArray[np.generic]:
    """Crop, RandAugment, resize, mirror, colour and shift, in the order of Perceiver's training code."""
    box = random_box(pixels, config.crop, rng) if config.crop else None
    if box is None:
        box = usual_box(pixels, config)
    if config.randaugment:
        # The operations see the part alone, at its own size.
        pixels = randaugment(np.asarray(cut(pixels, box), np.uint8), config.randaugment, rng)
        box = whole_box(pixels)
    pixels = framed(pixels, box, config)
    if config.flip and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if config.colour:
        pixels = jitter(pixels[None], config.colour, rng)[0]
    if config.shift_pixels:
        down, right = rng.integers(-config.shift_pixels, config.shift_pixels, size=2, endpoint=True)
        pixels = shift(pixels, int(down), int(right))
    return pixels


def shift(pixels: NDArray[np.generic], down: int, right: int) -> NDArray[np.generic]:
    """Return the image moved by whole pixels; what comes in at the border is 0."""
    height, width = pixels.shape[:2]
    moved = np.zeros_like(pixels)
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = pixels[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved
