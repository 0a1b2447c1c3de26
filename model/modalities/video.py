"""Clips, cut into boxes, each with its place on (time, row, column)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config.cost import Cost, Kept, linear
from model.config.grids import PositionsConfig, Problems
from model.modalities.input import Input, axes, coarsest, cuts, few_bands
from model.modalities.pixel_range import PixelRange, range_problems

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class VideoInput(Input):
    """Frames (T, H, W, c), cut into boxes."""

    modality: Literal["video"] = "video"
    num_frames: int = 0
    """Frames of a clip; 0 as in the data."""
    height: int = 0
    """Rows of pixels; 0 as in the data."""
    width: int = 0
    """Columns of pixels; 0 as in the data."""
    num_channels: int = 0
    """Channels of a pixel; 0 as in the data, or 3 where a network stands alone."""
    # Boxes of 1 x 4 x 4 and 32 bands are those of the second paper's Kinetics network.
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

    sizes: ClassVar[tuple[str, ...]] = ("num_frames", "height", "width")
    dtype: ClassVar[str] = "uint8"
    is_separable: ClassVar[bool] = True
    value_range: ClassVar[float] = 1.0

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return self.num_channels or 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns and channels."""
        return (self.num_frames, self.height, self.width, self.channels)

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
        return self.patch_frames * self.patch**2 * self.channels

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.pixels import VideoAdapter

        return VideoAdapter(self)

    def cost(self) -> Cost:
        """Return the cost of the linear layer and of learned positions."""
        project = linear(self.raw_width, self.project_to, self.num_tokens) if self.project_to else Cost()
        return project + super().cost()

    def kept(self) -> Kept:
        """Return what the linear layer keeps."""
        return Kept(self.num_tokens * self.raw_width) if self.project_to else Kept()

    def fitted(self) -> dict[str, Any]:
        """Return the sides of a box, and bands."""
        choices = ((frames, side, side) for side in (1, 2, 4, 8, 16) for frames in (1, 2))
        frames, patch, _ = coarsest(choices, self.shape[:3])
        grid = (self.num_frames // frames, self.height // patch, self.width // patch)
        return {"patch_frames": frames, "patch": patch, "positions": few_bands(grid)}

    def meaning(self, name: str) -> str:  # noqa: ARG002 - of other modalities
        """Return what the values of the input are."""
        return f"uint8 ({axes(self.shape)}), red, green and blue from 0 to 255: the network scales them itself"

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        sides = {"height": (self.height, self.patch), "width": (self.width, self.patch)}
        yield from cuts(num_frames=(self.num_frames, self.patch_frames), **sides)
        yield from range_problems(self.pixel_range, self.channels)
