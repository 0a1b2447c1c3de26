"""Images: pixels, square patches of them, or a convolution's features, each with its place on (row, column)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config.cost import Cost, Kept, linear
from model.config.grids import PositionsConfig, Problems
from model.modalities.input import Input, axes, coarsest, cuts, few_bands
from model.modalities.pixel_range import STEM_WIDTH, PixelRange, range_problems, stem_cost, stem_kept

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ImageInput(Input):
    """Pixels (H, W, c), or square patches of them, or a convolution's features."""

    modality: Literal["image"] = "image"
    height: int = 0
    """Rows of pixels; 0 as in the data."""
    width: int = 0
    """Columns of pixels; 0 as in the data."""
    num_channels: int = 0
    """Channels of a pixel; 0 as in the data, or 3 where a network stands alone."""
    values: Literal["", "bytes", "unit", "raw"] = ""
    """bytes: uint8. unit: float32 from 0 to 1. raw: float32 of any range. Empty as in the data, or bytes alone."""
    patch: int = 1
    """Side of the square patch that makes one token; 1 means pixels."""
    # Of 224 x 224 pixels 56 x 56 tokens of 64 channels, as the second paper's convolutional ImageNet network has them.
    conv_stem: bool = False
    """Whether a 7x7 convolution to 64 channels and a max-pool, both of stride 2, come first."""
    project_to: int = 0
    """Channels of a linear layer over the patch (with patch 1: a 1x1 convolution); 0 means no such layer."""
    pixel_range: PixelRange = "unit"
    """The scaling of pixels: to [0, 1], [-1, 1], or by ImageNet's mean and deviation. Of values=raw there is none."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on (row, column)."""

    sizes: ClassVar[tuple[str, ...]] = ("height", "width")
    is_separable: ClassVar[bool] = True
    is_whole: ClassVar[bool] = True

    @property
    def dtype(self) -> str:  # type: ignore[override]  # it depends on the values here
        """Bytes, or floating point."""
        # Bytes are scaled on the device: they are a quarter of what floating point would take to it.
        return "float32" if self.values in ("unit", "raw") else "uint8"

    @property
    def value_range(self) -> float:  # type: ignore[override]  # idem
        """1 but for values of any range."""
        return 0.0 if self.values == "raw" else 1.0

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return self.num_channels or 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""
        return (self.height, self.width, self.channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns of tokens; SAME padding rounds the convolution's up."""
        if self.conv_stem:
            return (-(-self.height // 4), -(-self.width // 4))
        return (self.height // self.patch, self.width // self.patch)

    @property
    def entries_per_row(self) -> int:
        """Rows of pixels that a row of tokens covers."""
        # The convolution and its pool halve the rows, one after the other.
        return 4 if self.conv_stem else self.patch

    @property
    def content_width(self) -> int:
        """Channels of a patch, of the convolution or of the linear layer."""
        return self.project_to or self.raw_width

    @property
    def raw_width(self) -> int:
        """Channels before the linear layer."""
        return STEM_WIDTH if self.conv_stem else self.patch**2 * self.channels

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.pixels import ImageAdapter

        return ImageAdapter(self)

    def cost(self) -> Cost:
        """Return the cost of the convolution, of the linear layer and of learned positions."""
        project = linear(self.raw_width, self.project_to, self.num_tokens) if self.project_to else Cost()
        stem = stem_cost(self.height, self.width, self.channels) if self.conv_stem else Cost()
        return project + stem + super().cost()

    def kept(self) -> Kept:
        """Return what the linear layer and the convolution keep."""
        project = Kept(self.num_tokens * self.raw_width) if self.project_to else Kept()
        return project + (stem_kept(self.height, self.width, self.channels) if self.conv_stem else Kept())

    def fitted(self) -> dict[str, Any]:
        """Return the side of a patch, and bands."""
        patch = coarsest(((side, side) for side in (1, 2, 4, 8, 16, 32)), self.shape[:2])[0]
        return {"patch": patch, "positions": few_bands([length // patch for length in self.shape[:2]])}

    def meaning(self, name: str) -> str:  # noqa: ARG002 - of other modalities
        """Return what the values of the input are."""
        if self.values in ("unit", "raw"):
            return (
                f"float32 ({axes(self.shape)}), {'from 0 to 1' if self.values == 'unit' else 'as the files have them'}"
            )
        colours = "red, green and blue" if self.channels == 3 else f"{self.channels} channels"
        return f"uint8 ({axes(self.shape)}), {colours} from 0 to 255: the network scales them itself"

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        yield from cuts(height=(self.height, self.patch), width=(self.width, self.patch))
        yield from range_problems(self.pixel_range, self.channels)
        if self.values == "raw" and self.pixel_range != "unit":
            yield (
                "pixel_range",
                f"{self.pixel_range} is for pixels from 0 to 1, not values=raw; set values=unit in the data",
            )
        if self.conv_stem and self.patch != 1:
            # The convolution has made features of the pixels by then, and a patch is one of pixels.
            yield "patch", f"must be 1 with conv_stem, got {self.patch}"
