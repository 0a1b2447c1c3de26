"""An adapter for each modality: values as the loader delivers them -> tokens with their positions.

B samples, M tokens, C channels of a token
T frames, H rows, W columns, S audio samples, P points, L characters
"""

from math import prod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from model.config_grids import PositionsConfig
from model.config_inputs import (
    AnyInput,
    AudioInput,
    ImageInput,
    PixelRange,
    PointsInput,
    TextInput,
    VideoInput,
)
from model.parameters import Projection, Table
from model.positions import fourier_features, grid_places

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Positions(nn.Module):
    """The positions of a grid's tokens, concatenated after their channels.

    Fourier features are a constant of the grid: computed once, in no checkpoint.
    """

    table: Tensor

    def __init__(self, config: PositionsConfig, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.kind = config.kind
        if config.kind == "fourier":
            places = grid_places(grid, dtype=torch.get_default_dtype())
            max_resolution = [float(top) for top in config.max_resolution or grid]
            features = fourier_features(places, config.num_bands, max_resolution)
            self.register_buffer("table", features, persistent=False)
        elif config.kind == "learned":
            self.learned = Table(prod(grid), config.learned_width)
            self.project = Projection(config.learned_width, config.project_to) if config.project_to else nn.Identity()

    def forward(self, content_BMC: Float[Tensor, "B M C"]) -> Float[Tensor, "B M D"]:
        """Return the tokens with their positions."""
        if self.kind == "none":
            return content_BMC
        positions_MP = self.table if self.kind == "fourier" else self.project(self.learned.weight)
        return torch.cat([content_BMC, positions_MP.expand(len(content_BMC), -1, -1)], dim=-1)


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


class ImageAdapter(nn.Module):
    """Pixels or patches, each with its place on (row, column)."""

    def __init__(self, config: ImageInput) -> None:
        super().__init__()
        self.config = config
        raw_width = config.patch**2 * config.num_channels
        self.project = Projection(raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def forward(self, pixels: Shaped[Tensor, "B H W c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of images, uint8 or float."""
        scaled = scaled_pixels(pixels, self.config.pixel_range, dtype)
        out: Tensor = self.positions(self.project(boxes(scaled, (self.config.patch, self.config.patch))))
        return out


class AudioAdapter(nn.Module):
    """Patches of raw samples, each with its place in time."""

    def __init__(self, config: AudioInput) -> None:
        super().__init__()
        self.config = config
        self.positions = Positions(config.positions, config.grid)

    def forward(self, samples_BS: Float[Tensor, "B S"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of recordings in [-1, 1]."""
        out: Tensor = self.positions(samples_BS.to(dtype).reshape(len(samples_BS), -1, self.config.patch))
        return out


class VideoAdapter(nn.Module):
    """Boxes of a clip, each with its place on (time, row, column)."""

    def __init__(self, config: VideoInput) -> None:
        super().__init__()
        self.config = config
        raw_width = config.patch_frames * config.patch**2 * config.num_channels
        self.project = Projection(raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def forward(self, pixels: Shaped[Tensor, "B T H W c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of clips, uint8 or float."""
        scaled = scaled_pixels(pixels, self.config.pixel_range, dtype)
        sides = (self.config.patch_frames, self.config.patch, self.config.patch)
        out: Tensor = self.positions(self.project(boxes(scaled, sides)))
        return out


class PointsAdapter(nn.Module):
    """The Fourier features of every point's coordinates: the only modality whose positions are its values."""

    def __init__(self, config: PointsInput) -> None:
        super().__init__()
        self.config = config

    def forward(self, points_BPA: Float[Tensor, "B P A"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of clouds in [-1, 1]."""
        # In at least float32 whatever the network computes in: at 1 120 half periods a unit, bfloat16 would be noise.
        places = points_BPA.to(torch.promote_types(dtype, torch.float32))
        resolution = [2 * self.config.max_frequency] * self.config.num_channels
        return fourier_features(places, self.config.num_bands, resolution).to(dtype)


class TextAdapter(nn.Module):
    """The embedding of every byte or token plus the learned vector of its place."""

    def __init__(self, config: TextInput) -> None:
        super().__init__()
        self.config = config
        self.embedding = Table(config.vocabulary, config.embedding_width)
        self.places = Table(config.max_tokens, config.embedding_width)

    def forward(self, ids_BL: Int[Tensor, "B L"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of ids."""
        embedded = nn.functional.embedding(ids_BL.long(), self.embedding.weight)
        return (embedded + self.places.weight[: ids_BL.shape[1]]).to(dtype)


def adapter(config: AnyInput) -> nn.Module:
    """Return the adapter of a modality."""
    match config:
        case ImageInput():
            return ImageAdapter(config)
        case AudioInput():
            return AudioAdapter(config)
        case VideoInput():
            return VideoAdapter(config)
        case PointsInput():
            return PointsAdapter(config)
        case TextInput():
            return TextAdapter(config)
    raise NotImplementedError(f"no adapter for {type(config).__name__}")
