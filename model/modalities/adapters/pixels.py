"""The adapters of images, clips and pairs of frames: pixels -> tokens with their positions.

B samples, M tokens, C channels of a token
T frames, H rows, W columns, c channels of a pixel
"""

from abc import abstractmethod
from math import prod

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from model.modalities.adapters.boxes import boxes
from model.modalities.adapters.conv_stem import ConvStem, Total
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.pixel_range import PixelRange
from model.modalities.video import VideoInput
from model.parameters import Projection
from model.positions import GridAdapter, Positions

# Red first, as the released image networks were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
# Of three channels, what lies under the kernel at these takes 77 MB in float64.
OBSERVED_PIXELS = 2**18


def scaled_pixels(
    pixels: Shaped[Tensor, "*S"], pixel_range: PixelRange, dtype: torch.dtype, *, is_unit: bool = False
) -> Float[Tensor, "*S"]:
    """Return uint8 pixels in the range that is asked for; floats too where they are from 0 to 1, else as they are."""
    if pixels.is_floating_point() and not is_unit:
        return pixels.to(dtype)
    # Here and not in the loader: bytes are a quarter of what would be copied to the device.
    unit = pixels.to(dtype) if is_unit else pixels.to(dtype) / 255
    if pixel_range == "centred":
        return unit * 2 - 1
    if pixel_range == "imagenet":
        return (unit - unit.new_tensor(IMAGENET_MEAN)) / unit.new_tensor(IMAGENET_DEVIATION)
    return unit


class StemAdapter(GridAdapter):
    """Tokens that may be the features of a convolution."""

    stem: ConvStem | None

    @abstractmethod
    def seen(self, pixels: Shaped[Tensor, "B *S"], dtype: torch.dtype) -> Float[Tensor, "b H W c"]:
        """Return the images that the convolution sees, as many for every sample."""

    def observe(
        self, pixels: Shaped[Tensor, "B *S"], shown_B: Bool[Tensor, " B"], dtype: torch.dtype, total: Total
    ) -> None:
        """Take the statistics of a global batch, of which these are this rank's samples. Collective."""
        assert self.stem is not None
        # A few samples at a time: what lies under the kernel is many times the size of the pixels.
        rows = max(1, OBSERVED_PIXELS // prod(pixels.shape[1:-1]))
        parts = []
        for part, shown_b in zip(torch.split(pixels, rows), torch.split(shown_B, rows), strict=True):
            images = self.seen(part, dtype)
            # To leave out none of the images would copy them, and on a device wait for it.
            is_whole = shown_b.device.type == "cpu" and bool(shown_b.all())
            shown = None if is_whole else shown_b.repeat_interleave(len(images) // len(part))
            parts.append(self.stem.sums(images, shown))
        self.stem.observe(total(torch.stack(parts).sum(dim=0)))


class ImageAdapter(StemAdapter):
    """Pixels, patches or a convolution's features, each with its place on (row, column)."""

    def __init__(self, config: ImageInput) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvStem(config.channels) if config.conv_stem else None
        self.project = Projection(config.raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def content(self, pixels: Shaped[Tensor, "B H W c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of images, uint8 or float, without their positions."""
        scaled = self.seen(pixels, dtype)
        values = self.stem(scaled) if self.stem else scaled
        out: Tensor = self.project(boxes(values, (self.config.patch, self.config.patch)))
        return out

    def seen(self, pixels: Shaped[Tensor, "B H W c"], dtype: torch.dtype) -> Float[Tensor, "B H W c"]:
        """Return the images in the range that the config asks for."""
        return scaled_pixels(pixels, self.config.pixel_range, dtype, is_unit=self.config.values == "unit")


class VideoAdapter(GridAdapter):
    """Boxes of a clip, each with its place on (time, row, column)."""

    def __init__(self, config: VideoInput) -> None:
        super().__init__()
        self.config = config
        self.project = Projection(config.raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def content(self, pixels: Shaped[Tensor, "B T H W c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of clips, uint8 or float, without their positions."""
        scaled = scaled_pixels(pixels, self.config.pixel_range, dtype)
        sides = (self.config.patch_frames, self.config.patch, self.config.patch)
        out: Tensor = self.project(boxes(scaled, sides))
        return out


class FlowAdapter(StemAdapter):
    """The 3x3 neighbourhoods of a pixel in both frames, or a convolution's features, with their place."""

    def __init__(self, config: FlowInput) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvStem(config.frames_per_token * config.channels) if config.conv_stem else None
        self.project = Projection(config.raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def content(self, pixels: Shaped[Tensor, "B 2 H W c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of pairs of frames, uint8 or float, without their positions."""
        values = self.seen(pixels, dtype)
        if self.stem:
            values = self.stem(values)
        out: Tensor = self.project(values.reshape(pixels.shape[0], -1, values.shape[-1]))
        return out

    def seen(self, pixels: Shaped[Tensor, "B 2 H W c"], dtype: torch.dtype) -> Float[Tensor, "b H W C"]:
        """Return the frames, or their neighbourhoods, one by one or the two of a pair joined by their channels."""
        frames = scaled_pixels(pixels, self.config.pixel_range, dtype)
        values = frames if self.stem else neighbourhoods(frames)
        return values.flatten(0, 1) if self.config.separate_frames else torch.cat([values[:, 0], values[:, 1]], dim=-1)


def neighbourhoods(frames: Float[Tensor, "B 2 H W c"]) -> Float[Tensor, "B 2 H W C"]:
    """Return the 3x3 pixels around each pixel, row by row, then channels; outside of a frame there are zeros."""
    height, width = frames.shape[2:4]
    wide = functional.pad(frames, (0, 0, 1, 1, 1, 1))
    # Row, column, channel, as in DeepMind's code: released weights depend on the order.
    shifted = [wide[:, :, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return torch.cat(shifted, dim=-1)
