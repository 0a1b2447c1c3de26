"""Inputs that consist of pixels: images, video and pairs of frames."""

from dataclasses import dataclass, field
from typing import Literal

from model.config.grids import PositionsConfig, Problems, TokenGrid, cuts

PixelRange = Literal["unit", "centred", "imagenet"]
STEM_WIDTH = 64
"""Channels of the convolution that may stand before tokens."""


@dataclass(frozen=True)
class ImageInput(TokenGrid):
    """Pixels (H, W, 3), or square patches of them, or a convolution's features."""

    height: int = 224
    """Rows of pixels."""
    width: int = 224
    """Columns of pixels."""
    num_channels: int = 3
    """Channels of a pixel."""
    patch: int = 1
    """Side of the square patch that makes one token; 1 means pixels."""
    conv_stem: bool = False
    """Whether a 7x7 convolution to 64 channels and a max-pool, both of stride 2, come first."""
    project_to: int = 0
    """Channels of a linear layer over the patch (with patch 1: a 1x1 convolution); 0 means no such layer."""
    pixel_range: PixelRange = "unit"
    """The scaling of uint8 pixels: to [0, 1], [-1, 1], or by ImageNet's mean and deviation. Floats are not scaled."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on (row, column)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""
        return (self.height, self.width, self.num_channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns of tokens; SAME padding rounds the convolution's up."""
        if self.conv_stem:
            return (-(-self.height // 4), -(-self.width // 4))
        return (self.height // self.patch, self.width // self.patch)

    @property
    def entries_per_row(self) -> int:
        """Rows of pixels that a row of tokens covers."""
        return 4 if self.conv_stem else self.patch

    @property
    def content_width(self) -> int:
        """Channels of a patch, of the convolution or of the linear layer."""
        return self.project_to or self.raw_width

    @property
    def raw_width(self) -> int:
        """Channels before the linear layer."""
        return STEM_WIDTH if self.conv_stem else self.patch**2 * self.num_channels

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        yield from cuts(height=(self.height, self.patch), width=(self.width, self.patch))
        yield from _range_problems(self.pixel_range, self.num_channels)
        if self.conv_stem and self.patch != 1:
            yield "patch", f"must be 1 with conv_stem, got {self.patch}"


@dataclass(frozen=True)
class VideoInput(TokenGrid):
    """Frames (T, H, W, 3), cut into boxes."""

    num_frames: int = 16
    """Frames of a clip."""
    height: int = 224
    """Rows of pixels."""
    width: int = 224
    """Columns of pixels."""
    num_channels: int = 3
    """Channels of a pixel."""
    patch_frames: int = 1
    """Frames that a token spans."""
    patch: int = 4
    """Side of the square that a token spans in each of its frames."""
    project_to: int = 0
    """Channels of a linear layer over the box; 0 means no such layer."""
    pixel_range: PixelRange = "unit"
    """The scaling of uint8 pixels; see the image's."""
    positions: PositionsConfig = field(default_factory=lambda: PositionsConfig(num_bands=32))
    """Positions on (time, row, column)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns and channels."""
        return (self.num_frames, self.height, self.width, self.num_channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Boxes along time, rows and columns."""
        return (self.num_frames // self.patch_frames, self.height // self.patch, self.width // self.patch)

    @property
    def entries_per_row(self) -> int:
        """Frames of a box."""
        return self.patch_frames

    @property
    def content_width(self) -> int:
        """Channels of a box or of the linear layer."""
        return self.project_to or self.raw_width

    @property
    def raw_width(self) -> int:
        """Channels before the linear layer."""
        return self.patch_frames * self.patch**2 * self.num_channels

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        sides = {"height": (self.height, self.patch), "width": (self.width, self.patch)}
        yield from cuts(num_frames=(self.num_frames, self.patch_frames), **sides)
        yield from _range_problems(self.pixel_range, self.num_channels)


@dataclass(frozen=True)
class FlowInput(TokenGrid):
    """Two frames (2, H, W, 3): the 3x3 neighbourhoods of a pixel, or a convolution's features, and a linear layer."""

    height: int = 368
    """Rows of pixels."""
    width: int = 496
    """Columns of pixels."""
    num_channels: int = 3
    """Channels of a pixel."""
    conv_stem: bool = False
    """Whether the image's convolution and max-pool take the neighbourhoods' place: a quarter of the rows and columns,
    whose motion the decoder upsamples."""
    project_to: int = 64
    """Channels of the linear layer; 0 means no such layer."""
    pixel_range: PixelRange = "centred"
    """The scaling of uint8 pixels; see the image's."""
    separate_frames: bool = False
    """Whether each frame has its own tokens, instead of one token with both frames' neighbourhoods."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on (row, column), or on (frame, row, column) of separate frames."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns and channels."""
        return (2, self.height, self.width, self.num_channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns of tokens, under a frame axis if the frames are separate."""
        return (2, *self.cells) if self.separate_frames else self.cells

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the places whose motion is asked; SAME padding rounds the convolution's up."""
        side = self.upsampling
        return (-(-self.height // side), -(-self.width // side))

    @property
    def upsampling(self) -> int:
        """Pixels on each side of such a place."""
        return 4 if self.conv_stem else 1

    @property
    def entries_per_row(self) -> int:
        """A row of tokens covers its frame, or none of its own: where tokens hold both, a pair is there as a whole."""
        return 1 if self.separate_frames else 0

    @property
    def content_width(self) -> int:
        """Channels of the neighbourhoods, of the convolution or of the linear layer."""
        return self.project_to or self.raw_width

    @property
    def raw_width(self) -> int:
        """Channels before the linear layer."""
        return STEM_WIDTH if self.conv_stem else 9 * self.num_channels * self.frames_per_token

    @property
    def frames_per_token(self) -> int:
        """Frames that a token shows."""
        return 1 if self.separate_frames else 2

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        yield from _range_problems(self.pixel_range, self.num_channels)


def _range_problems(pixel_range: PixelRange, num_channels: int) -> Problems:
    if pixel_range == "imagenet" and num_channels != 3:
        yield "pixel_range", f"imagenet is defined for 3 channels, got {num_channels}; use unit"
