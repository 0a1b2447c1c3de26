"""Cropping and resizing, shared by images and the frames of videos."""

import math
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transform_config import CropConfig

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge, in pixels."""

_FILTERS = MappingProxyType(
    {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
        "nearest": Image.Resampling.NEAREST,
    }
)


def centre_box(picture: NDArray[np.generic], height: int, width: int, part: float = 1.0) -> Box:
    """Return the largest centred box of aspect ratio height / width, its sides multiplied by `part`."""
    rows, columns = picture.shape[:2]
    scale = min(rows / height, columns / width) * part
    top, left = (rows - scale * height) / 2, (columns - scale * width) / 2
    return left, top, left + scale * width, top + scale * height


def whole_box(picture: NDArray[np.generic]) -> Box:
    """Return the box of all of the picture."""
    return 0, 0, picture.shape[1], picture.shape[0]


def random_box(picture: NDArray[np.generic], config: CropConfig, rng: np.random.Generator) -> Box | None:
    """Return a box of random area, stretch and place, all on whole pixels; None where no attempt fitted."""
    rows, columns = picture.shape[:2]
    for _ in range(config.attempts):
        area = rng.uniform(config.min_area, config.max_area) * rows * columns
        # Uniform in its logarithm: as often flat as upright.
        stretch = math.exp(rng.uniform(-1, 1) * math.log(config.max_stretch))
        width, height = round(math.sqrt(area * stretch)), round(math.sqrt(area / stretch))
        if 0 < width <= columns and 0 < height <= rows:
            left = int(rng.integers(columns - width, endpoint=True))
            top = int(rng.integers(rows - height, endpoint=True))
            return left, top, left + width, top + height
    return None


def resize(pixels: NDArray[np.generic], box: Box, height: int, width: int, method: str) -> NDArray[np.generic]:
    """Return the box of the picture as (height, width, channels), by the method of that name."""
    # Pillow would filter the pixels all the same, and give the same ones.
    if box == whole_box(pixels) and pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return _resized(pixels, box, height, width, method)
    # One by one: of four channels Pillow would multiply three by the fourth.
    parts = [_resized(channel, box, height, width, method) for channel in np.moveaxis(pixels, 2, 0)]
    return np.stack(parts, axis=2)


def _resized(pixels: NDArray[np.generic], box: Box, height: int, width: int, method: str) -> NDArray[np.generic]:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((width, height), _FILTERS[method], box=box))


def usual_box(picture: NDArray[np.generic], config: ImageConfig | VideoConfig) -> Box:
    """Return the part of a picture that is read where no part is drawn."""
    if config.fit == "crop":
        return centre_box(picture, config.height, config.width, config.centre_crop)
    return whole_box(picture)


def framed(pixels: NDArray[np.generic], box: Box, config: ImageConfig | VideoConfig) -> NDArray[np.generic]:
    """Return the box of the picture as (height, width, channels), by the config's filter, padded where it says so."""
    if config.fit == "pad":
        return _padded(pixels, box, config.height, config.width, config.resize)
    return resize(pixels, box, config.height, config.width, config.resize)


def _padded(pixels: NDArray[np.generic], box: Box, height: int, width: int, method: str) -> NDArray[np.generic]:
    """Return the box in its own aspect ratio, as large as fits, about the centre of a black picture."""
    left, top, right, bottom = box
    scale = min(height / (bottom - top), width / (right - left))
    # At least one: a picture a hundred times as wide as high would have no row left.
    rows, columns = max(1, round(scale * (bottom - top))), max(1, round(scale * (right - left)))
    picture = np.zeros((height, width, pixels.shape[2]), pixels.dtype)
    above, before = (height - rows) // 2, (width - columns) // 2
    picture[above : above + rows, before : before + columns] = resize(pixels, box, rows, columns, method)
    return picture


def cut(pixels: NDArray[np.generic], box: Box) -> NDArray[np.generic]:
    """Return the box of the picture, its edges rounded to whole pixels."""
    left, top, right, bottom = (round(edge) for edge in box)
    return pixels[top:bottom, left:right]
