"""Clouds of points: a token is the Fourier features of its point's coordinates, the only positions that are values."""

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar, Literal

from model.config.grids import Problems
from model.modalities.input import Input

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PointsInput(Input):
    """A cloud of points (P, 3): a token is the Fourier features of its point's coordinates."""

    modality: Literal["points"] = "points"
    num_points: int = 0
    """Points of a cloud; 0 as in the data."""
    num_channels: int = 0
    """Coordinates of a point, expected in [-1, 1]; 0 as in the data, or 3 where a network stands alone."""
    num_bands: int = 64
    """Frequencies a coordinate, evenly spaced from 1 to the maximum."""
    # Ten times that of ImageNet's pixels, as in the first paper (section 4.3).
    max_frequency: float = 1_120.0
    """Highest frequency, in half periods a unit."""

    sizes: ClassVar[tuple[str, ...]] = ("num_points",)

    @property
    def channels(self) -> int:
        """Coordinates of a point."""
        return self.num_channels or 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Points and coordinates."""
        return (self.num_points, self.channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """The points."""
        return (self.num_points,)

    @property
    def content_width(self) -> int:
        """Coordinates, sines and cosines."""
        return self.channels * (2 * self.num_bands + 1)

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.values import PointsAdapter

        return PointsAdapter(self)

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        if not 1 <= self.max_frequency < inf:
            yield "max_frequency", f"must be at least 1, and finite, got {self.max_frequency}"
