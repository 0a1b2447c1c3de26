"""Images: PNG, JPEG, WebP, BMP, PPM and TIFF to (height, width, channels), as bytes or float32."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional, Self

from data_shards.files.problems import Problem, at_least
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared, nested
from data_shards.modalities.transform_config import (
    ColourConfig,
    CropConfig,
    RandAugmentConfig,
    centre_crop_problems,
    channel_problems,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best

MOST_PIXELS = 224
"""Of a side, where a section is fitted to samples."""


@dataclass(frozen=True)
class ImageConfig(Modality):
    """Images as uint8 or float32 (height, width, channels)."""

    modality: Literal["image"] = "image"
    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""
    num_channels: int = 3
    """Channels of a pixel. Grey is repeated for 3, alpha left out or made opaque; others must be as many."""
    to_grey: bool = False
    """If true, colours become grey where num_channels is 1; if false, such an image is bad."""
    values: Literal["bytes", "upper_bits", "unit", "raw", "file"] = "bytes"
    """bytes: uint8, of files of 8 bits. upper_bits: uint8, of 16 bits the upper ones. unit: float32 with every bit, 0
    to 1. raw: the numbers of the file as float32. file is for showing them."""
    value_range: tuple[float, ...] = ()
    """The numbers of the file that become 0 and 1 by values=unit; empty for all that 8 or 16 bits can say."""
    nan: Literal["refuse", "zero"] = "refuse"
    """Numbers that are not finite make the sample bad, or become zeros."""
    resize: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    """Pillow's filter of that name, with antialiasing where the image shrinks."""
    fit: Literal["crop", "stretch", "pad"] = "crop"
    """How other aspect ratios are fitted to this shape, in training too. crop: the largest centred part of this ratio,
    so the ends of a wide image are never read. stretch: all of it, distorted. pad: all of it, black beside it."""
    centre_crop: float = 1.0
    """Part of the shorter side that fit=crop keeps where nothing is random; 0.875 is usual for ImageNet."""
    crop: Optional[CropConfig] = None
    """Set to train on random parts of the image."""
    flip: bool = False
    """Training mirrors every second image."""
    colour: Optional[ColourConfig] = None
    """Set to train on images with random brightness, contrast and saturation."""
    randaugment: Optional[RandAugmentConfig] = None
    """Set to train on images with random operations, after the crop and before the resizing."""
    shift_pixels: int = 0
    """Training moves the image by up to this many pixels in each direction; what comes in at the border is 0."""

    usual: ClassVar[tuple[str, ...]] = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff")

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""
        return self.height, self.width, self.num_channels

    @property
    def dtype(self) -> str:  # type: ignore[override]  # it depends on the values here
        """Bytes, or floating point."""
        return "float32" if self.values in ("unit", "raw") else "uint8"

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        # To the network upper bits are bytes as well.
        return {
            "height": self.height,
            "width": self.width,
            "num_channels": self.num_channels,
            "values": self.values if self.dtype == "float32" else "bytes",
        }

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return the image in this shape; in training varied at random."""
        from data_shards.modalities.transforms import image

        return Prepared(*image.fit(found[MAIN].content, self, rng))

    def file(self, values: "np.ndarray") -> tuple[str, bytes]:
        """Return a PNG of values in [0, 1] where the image is bytes of 1, 3 or 4 channels; else numbers."""
        # A picture would lose bits or channels of the others.
        if self.dtype != "uint8" or values.shape[-1] not in (1, 3, 4):
            return super().file(values)
        from data_shards.modalities.encoding import png

        return "png", png(values)

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode an image and return its shape."""
        from data_shards.modalities.decoding.image import picture

        return picture(content).values.shape

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:
        """Return rows, columns, channels and kind of values."""
        from data_shards.modalities.decoding.image import picture
        from data_shards.modalities.fitting import side

        seen = [picture(content).values for content in contents]
        channels = {values.shape[2] for values in seen}
        # Grey is repeated and alpha left out where colours are among them.
        usual = 1 if channels <= {1, 2} else 3
        sizes: dict[str, Any] = {
            "height": side([values.shape[0] for values in seen], MOST_PIXELS),
            "width": side([values.shape[1] for values in seen], MOST_PIXELS),
            "num_channels": usual if max(channels) <= 4 else max(channels),
        }
        # 8 and 16 bits have a known greatest number; other kinds are read as they are.
        kinds = {values.dtype.name for values in seen}
        if kinds != {"uint8"}:
            sizes["values"] = "unit" if kinds <= {"uint8", "uint16"} else "raw"
        return sizes

    @classmethod
    def lenient(cls) -> Self:
        """Return the section that takes images as they are."""
        return cls(values="file")

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the image as it is; of more channels than colours have, the first."""
        from data_shards.modalities.decoding.image import picture
        from data_shards.modalities.drawing import draw_picture

        draw_picture(axes, picture(found[MAIN].content).values)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"height": self.height, "width": self.width, "num_channels": self.num_channels})
        yield from at_least(0, {"shift_pixels": self.shift_pixels})
        yield from centre_crop_problems(self.centre_crop, self.fit)
        yield from nested(crop=self.crop, colour=self.colour, randaugment=self.randaugment)
        yield from channel_problems(self.num_channels, self.dtype, self.colour, self.randaugment)
        yield from self._value_problems()

    def _value_problems(self) -> Iterator[Problem]:
        if self.values == "file":
            yield "values", "file is for showing files; set bytes, unit or raw"
        if self.to_grey and self.num_channels > 2:
            yield "to_grey", f"is for num_channels=1, got {self.num_channels}; leave it out, or set num_channels=1"
        if self.value_range and self.values != "unit":
            yield "value_range", f"is for values=unit, got values={self.values}; set that, or leave it out"
        elif self.value_range and not (
            len(self.value_range) == 2 and -math.inf < self.value_range[0] < self.value_range[1] < math.inf
        ):
            yield "value_range", f"needs two numbers, the lower one first, got {list(self.value_range)}"
