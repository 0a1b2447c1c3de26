"""The adapters of images, clips and pairs of frames: pixels -> tokens with their positions.

B samples, M tokens, C channels of a token
T frames, H rows, W columns, c channels of a pixel
"""

from math import prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from model.config_pixels import STEM_WIDTH, FlowInput, ImageInput, PixelRange, VideoInput
from model.parameters import Convolution, Projection
from model.positions import GridAdapter, Positions

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def scaled_pixels(pixels: Shaped[Tensor, "*S"], pixel_range: PixelRange, dtype: torch.dtype) -> Float[Tensor, "*S"]:
    """Return uint8 pixels in the range that is asked for; floats are taken as they are."""
    if pixels.is_floating_point():
        return pixels.to(dtype)
    unit = pixels.to(dtype) / 255
    if pixel_range == "centred":
        return unit * 2 - 1
    if pixel_range == "imagenet":
        return (unit - unit.new_tensor(IMAGENET_MEAN)) / unit.new_tensor(IMAGENET_DEVIATION)
    return unit


def boxes(values: Float[Tensor, "B *G c"], sides: tuple[int, ...]) -> Float[Tensor, "B M C"]:
    """Cut a grid into boxes with these sides; a token's channels are the box in row-major order, then c."""
    batch, *shape, channels = values.shape
    split: list[int] = []
    for length, side in zip(shape, sides, strict=True):
        split += [length // side, side]
    axes = len(sides)
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    return values.reshape(batch, *split, channels).permute(order).reshape(batch, -1, prod(sides) * channels)


def same_padding(length: int, side: int, stride: int) -> tuple[int, int]:
    """Return the padding of TensorFlow's and JAX's SAME, which is larger after than before."""
    total = max((-(-length // stride) - 1) * stride + side - length, 0)
    return total // 2, total - total // 2


class ConvStem(nn.Module):
    """A 7x7 convolution, batch norm, ReLU and a 3x3 max-pool, both of stride 2 and SAME padding: 224 -> 56."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.convolution = Convolution(num_channels, STEM_WIDTH, side=7, stride=2)
        self.norm = nn.BatchNorm2d(STEM_WIDTH)

    def forward(self, pixels: Float[Tensor, "B H W c"]) -> Float[Tensor, "B h w C"]:
        """Return the features, a quarter of the image's height and width."""
        height, width = pixels.shape[1:3]
        pads = (*same_padding(width, 7, 2), *same_padding(height, 7, 2))
        features = functional.relu(self.norm(self.convolution(functional.pad(pixels.permute(0, 3, 1, 2), pads))))
        height, width = features.shape[2:]
        # After the ReLU nothing is below 0, so that zeros pad a maximum as minus infinity would.
        pads = (*same_padding(width, 3, 2), *same_padding(height, 3, 2))
        pooled = functional.max_pool2d(functional.pad(features, pads), 3, stride=2)
        return pooled.permute(0, 2, 3, 1)


class ImageAdapter(GridAdapter):
    """Pixels, patches or a convolution's features, each with its place on (row, column)."""

    def __init__(self, config: ImageInput) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvStem(config.num_channels) if config.conv_stem else nn.Identity()
        self.project = Projection(config.raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def content(self, pixels: Shaped[Tensor, "B H W c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of images, uint8 or float, without their positions."""
        scaled = self.stem(scaled_pixels(pixels, self.config.pixel_range, dtype))
        out: Tensor = self.project(boxes(scaled, (self.config.patch, self.config.patch)))
        return out


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


class FlowAdapter(GridAdapter):
    """The 3x3 neighbourhoods of a pixel in both frames, or a convolution's features, with their place."""

    def __init__(self, config: FlowInput) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvStem(config.frames_per_token * config.num_channels) if config.conv_stem else None
        self.project = Projection(config.raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def content(self, pixels: Shaped[Tensor, "B 2 H W c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of pairs of frames, uint8 or float, without their positions."""
        frames = scaled_pixels(pixels, self.config.pixel_range, dtype)
        values = frames if self.stem else neighbourhoods(frames)
        if self.config.separate_frames:
            values = values.flatten(0, 1)
        else:
            values = torch.cat([values[:, 0], values[:, 1]], dim=-1)
        if self.stem:
            values = self.stem(values)
        out: Tensor = self.project(values.reshape(pixels.shape[0], -1, values.shape[-1]))
        return out


def neighbourhoods(frames: Float[Tensor, "B 2 H W c"]) -> Float[Tensor, "B 2 H W C"]:
    """Return the 3x3 pixels around each pixel, row by row, then channels; outside of a frame there are zeros."""
    height, width = frames.shape[2:4]
    wide = functional.pad(frames, (0, 0, 1, 1, 1, 1))
    shifted = [wide[:, :, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return torch.cat(shifted, dim=-1)
