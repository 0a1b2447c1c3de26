"""Two frames between which the motion is sought: neighbourhoods of their pixels, or a convolution's features."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config.cost import Cost, Kept, linear
from model.config.grids import PositionsConfig, Problems
from model.modalities.input import FEW_TOKENS, Input, axes, few_bands
from model.modalities.pixel_range import STEM_WIDTH, PixelRange, range_problems, stem_cost, stem_kept

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class FlowInput(Input):
    """Two frames (2, H, W, 3): the 3x3 neighbourhoods of a pixel, or a convolution's features, and a linear layer."""

    modality: Literal["flow"] = "flow"
    height: int = 0
    """Rows of pixels; 0 as in the data."""
    width: int = 0
    """Columns of pixels; 0 as in the data."""
    num_channels: int = 0
    """Channels of a pixel; 0 as in the data, or 3 where a network stands alone."""
    conv_stem: bool = False
    """Whether the image's convolution and max-pool take the neighbourhoods' place: a quarter of the rows and columns,
    whose motion the decoder upsamples."""
    # Neighbourhoods, this width and the range of pixels are those of the released model.
    project_to: int = 64
    """Channels of the linear layer; 0 means no such layer."""
    pixel_range: PixelRange = "centred"
    """The scaling of uint8 pixels; see the image's."""
    separate_frames: bool = False
    """Whether each frame has its own tokens, instead of one token with both frames' neighbourhoods."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on (row, column), or on (frame, row, column) of separate frames."""

    sizes: ClassVar[tuple[str, ...]] = ("height", "width")
    dtype: ClassVar[str] = "uint8"
    is_whole: ClassVar[bool] = True

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return self.num_channels or 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns and channels."""
        return (2, self.height, self.width, self.channels)

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
        # Two strides of 2, as of an image.
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
        return STEM_WIDTH if self.conv_stem else 9 * self.channels * self.frames_per_token

    @property
    def frames_per_token(self) -> int:
        """Frames that a token shows, and that a convolution reads at once."""
        return 1 if self.separate_frames else 2

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.pixels import FlowAdapter

        return FlowAdapter(self)

    def cost(self) -> Cost:
        """Return the cost of the convolution, of the linear layer and of learned positions."""
        project = linear(self.raw_width, self.project_to, self.num_tokens) if self.project_to else Cost()
        return project + (stem_cost(*self._stem) if self.conv_stem else Cost()) + super().cost()

    def kept(self) -> Kept:
        """Return what the linear layer and the convolution keep."""
        project = Kept(self.num_tokens * self.raw_width) if self.project_to else Kept()
        return project + (stem_kept(*self._stem) if self.conv_stem else Kept())

    @property
    def _stem(self) -> tuple[int, int, int, int]:
        frames = self.frames_per_token
        # Both frames in one pass, or each in a pass of its own with the same weights.
        return self.height, self.width, self.channels * frames, 2 // frames

    def fitted(self) -> dict[str, Any]:
        """Return whether a convolution comes first, and bands."""
        is_large = self.height * self.width > FEW_TOKENS
        return {"conv_stem": is_large, "positions": few_bands((self.height // 4, self.width // 4))}

    def meaning(self, name: str) -> str:  # noqa: ARG002 - of other modalities
        """Return what the values of the input are."""
        return f"uint8 ({axes(self.shape)}), red, green and blue from 0 to 255: the network scales them itself"

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        yield from range_problems(self.pixel_range, self.channels)
