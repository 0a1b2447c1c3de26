"""Images: PNG, JPEG, WebP, BMP and PPM to uint8 (height, width, 3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional

from data_shards.files.problems import Problem, at_least
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared, nested
from data_shards.modalities.transform_config import CropConfig, RandAugmentConfig, centre_crop_problems

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best


@dataclass(frozen=True)
class ImageConfig(Modality):
    """Images as uint8 (height, width, 3)."""

    modality: Literal["image"] = "image"
    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""
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
    randaugment: Optional[RandAugmentConfig] = None
    """Set to train on images with random operations, after the crop and before the resizing."""
    shift_pixels: int = 0
    """Training moves the image by up to this many pixels in each direction; what comes in at the border is 0."""

    usual: ClassVar[tuple[str, ...]] = ("png", "jpg", "jpeg", "webp", "bmp")
    dtype: ClassVar[str] = "uint8"

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""
        return self.height, self.width, 3

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"height": self.height, "width": self.width, "num_channels": 3}

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return the image in this shape; in training varied at random."""
        from data_shards.modalities.transforms import image

        return Prepared(*image.fit(found[MAIN].content, self, rng))

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode an image and return its shape."""
        from data_shards.modalities.decoding.image import pixels

        return pixels(content).shape

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the image as it is."""
        from data_shards.modalities.decoding.image import pixels

        axes.axis("off")
        axes.imshow(pixels(found[MAIN].content))

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"height": self.height, "width": self.width})
        yield from at_least(0, {"shift_pixels": self.shift_pixels})
        yield from centre_crop_problems(self.centre_crop, self.fit)
        yield from nested(crop=self.crop, randaugment=self.randaugment)
