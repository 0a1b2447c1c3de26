"""RandAugment (arXiv 1909.13719) with the 16 operations of deepmind-research/perceiver/train/autoaugment.py.

As there, an operation that is drawn is always applied (the probability that the file draws is never used), directions
are drawn, strengths are not, and what comes in at a border is grey. Two things are Pillow's own: contrast is about the
true mean of the grey values, and a rotation keeps its centre.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from data_shards.modalities.transform_config import RandAugmentConfig

GREY = (128, 128, 128)
# These and the formulas below are those of the released code.
MAX_DEGREES = 30
MAX_SHEAR = 0.3
MAX_TRANSLATION_PIXELS = 100
MAX_CUTOUT_PIXELS = 40
"""Half the side of the square."""
Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]
"""A function of an image, a strength from 0 to 1, and a generator for further random choices."""


def randaugment(pixels: NDArray[np.uint8], config: RandAugmentConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the image after `num_layers` operations, each drawn from all 16."""
    picture = Image.fromarray(pixels)
    # The order of the table is part of what a draw means: an operation that is added in its middle changes every run.
    names = list(OPERATIONS)
    for number in rng.integers(len(names), size=config.num_layers):
        picture = OPERATIONS[names[number]](picture, config.magnitude / 10, rng)
    return np.asarray(picture)


def _signed(value: float, rng: np.random.Generator) -> float:
    return value if rng.random() < 0.5 else -value


def _moved(picture: Image.Image, rows: tuple[float, float, float, float, float, float]) -> Image.Image:
    """Return the image whose pixel (x, y) was at (a x + b y + c, d x + e y + f)."""
    # Nearest, as in the released code: between two pixels no third colour arises.
    return picture.transform(picture.size, Image.Transform.AFFINE, rows, Image.Resampling.NEAREST, fillcolor=GREY)


def _rotate(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return picture.rotate(_signed(strength * MAX_DEGREES, rng), Image.Resampling.NEAREST, fillcolor=GREY)


def _shear_x(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return _moved(picture, (1, _signed(strength * MAX_SHEAR, rng), 0, 0, 1, 0))


def _shear_y(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return _moved(picture, (1, 0, 0, _signed(strength * MAX_SHEAR, rng), 1, 0))


def _translate_x(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return _moved(picture, (1, 0, _signed(strength * MAX_TRANSLATION_PIXELS, rng), 0, 1, 0))


def _translate_y(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return _moved(picture, (1, 0, 0, 0, 1, _signed(strength * MAX_TRANSLATION_PIXELS, rng)))


def _cutout(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    reach = int(strength * MAX_CUTOUT_PIXELS)
    row, column = rng.integers(picture.height), rng.integers(picture.width)
    # A copy: Pillow gives a view that cannot be written to.
    pixels = np.array(picture)
    pixels[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach] = GREY
    return Image.fromarray(pixels)


def _solarize_add(picture: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    added = int(strength * 110)
    return picture.point([min(value + added, 255) if value < 128 else value for value in range(256)] * 3)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Return the operation that blends with a degenerate image; at strength 0.5 it changes nothing."""
    return lambda picture, strength, _rng: kind(picture).enhance(strength * 1.8 + 0.1)


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "auto_contrast": lambda picture, _strength, _rng: ImageOps.autocontrast(picture),
        "equalize": lambda picture, _strength, _rng: ImageOps.equalize(picture),
        "invert": lambda picture, _strength, _rng: ImageOps.invert(picture),
        "rotate": _rotate,
        "posterize": lambda picture, strength, _rng: picture.point(_kept_bits(int(strength * 4))),
        "solarize": lambda picture, strength, _rng: ImageOps.solarize(picture, int(strength * 256)),
        "colour": _enhanced(ImageEnhance.Color),
        "contrast": _enhanced(ImageEnhance.Contrast),
        "brightness": _enhanced(ImageEnhance.Brightness),
        "sharpness": _enhanced(ImageEnhance.Sharpness),
        "shear_x": _shear_x,
        "shear_y": _shear_y,
        "translate_x": _translate_x,
        "translate_y": _translate_y,
        "cutout": _cutout,
        "solarize_add": _solarize_add,
    }
)


def _kept_bits(num_bits: int) -> list[int]:
    """Return the table that keeps the upper bits of each value."""
    return [value >> (8 - num_bits) << (8 - num_bits) for value in range(256)] * 3
