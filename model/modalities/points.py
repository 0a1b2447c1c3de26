"""Clouds of points: a token is the Fourier features of its point's coordinates, and then the point's features."""

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config.grids import Problems
from model.modalities.input import Input

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PointsInput(Input):
    """A cloud of points (P, coordinates and features): coordinates become Fourier features, features stay."""

    modality: Literal["points"] = "points"
    num_points: int = 0
    """Points of a cloud; 0 as in the data."""
    num_dimensions: int = 0
    """Coordinates of a point, expected in [-1, 1]; 0 as in the data, or 3 where a network stands alone."""
    num_features: int = 0
    """What a point has beside its place, such as colours; 0 as in the data, or none where a network stands alone."""
    # Best in the first paper; with more than 256 its network overfitted (section 4.3).
    num_bands: int = 64
    """Frequencies a coordinate, evenly spaced from 1 to the maximum."""
    # Ten times that of ImageNet's pixels, as in the first paper (section 4.3).
    max_frequency: float = 1_120.0
    """Highest frequency, in half periods a unit."""

    sizes: ClassVar[tuple[str, ...]] = ("num_points",)
    optional: ClassVar[tuple[str, ...]] = ("num_dimensions", "num_features")

    @property
    def dimensions(self) -> int:
        """Coordinates of a point."""
        return self.num_dimensions or 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Points, and their coordinates and features."""
        return (self.num_points, self.dimensions + self.num_features)

    @property
    def grid(self) -> tuple[int, ...]:
        """The points."""
        return (self.num_points,)

    @property
    def has_axes(self) -> bool:
        """No: the points of a cloud are a set."""
        return False

    @property
    def content_width(self) -> int:
        """Coordinates, sines, cosines and features."""
        return self.dimensions * (2 * self.num_bands + 1) + self.num_features

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.values import PointsAdapter

        return PointsAdapter(self)

    def fitted(self) -> dict[str, Any]:
        """Return bands and the highest frequency."""
        return {"num_bands": 16, "max_frequency": 32.0}

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        if not 1 <= self.max_frequency < inf:
            yield "max_frequency", f"must be at least 1, and finite, got {self.max_frequency}"
