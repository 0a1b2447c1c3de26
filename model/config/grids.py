"""Position encodings, and the sentences about numbers that many sections share."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Literal

Problems = Iterator[tuple[str, str]]


def positive(**values: int) -> Problems:
    """Yield every name whose value is below 1."""
    for name, value in values.items():
        if value < 1:
            yield name, f"must be at least 1, got {value}"


def not_negative(**values: int | float) -> Problems:  # noqa: PYI041  # the tests execute it: an int is no float
    """Yield every name whose value is below 0 or no finite number."""
    for name, value in values.items():
        if not 0 <= value < inf:
            yield name, f"must be 0 or more, got {value}"


@dataclass(frozen=True)
class PositionsConfig:
    """The position encoding of a token, concatenated after the token's own channels."""

    kind: Literal["fourier", "learned", "none"] = "fourier"
    """Fourier features of the place, a learned table with one row a token, or nothing."""
    num_bands: int = 64
    """Frequencies an axis for kind "fourier": evenly spaced from 1 to half the axis' maximum resolution."""
    max_resolution: tuple[int, ...] = ()
    """An axis each: twice its highest frequency; empty means the size of the grid."""
    learned_width: int = 256
    """Channels of the table for kind "learned"."""
    project_to: int = 0
    """Channels of a linear layer after the learned table; 0 means no such layer."""

    def width(self, num_axes: int) -> int:
        """Return the channels that positions add to a token."""
        if self.kind == "fourier":
            # A sine and a cosine a band, and the place itself.
            return num_axes * (2 * self.num_bands + 1)
        return (self.project_to or self.learned_width) if self.kind == "learned" else 0

    def fourier_resolution(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return twice the highest frequency on each axis of a grid; empty without Fourier features."""
        return tuple(self.max_resolution or grid) if self.kind == "fourier" else ()

    def problems(self, grid: tuple[int, ...]) -> Problems:
        """Yield (key, sentence) of everything that a grid of this shape cannot have."""
        if self.kind == "fourier" and self.num_bands < 1:
            yield "num_bands", f"must be at least 1, got {self.num_bands}"
        if self.max_resolution and len(self.max_resolution) != len(grid):
            yield "max_resolution", f"needs {len(grid)} numbers, one an axis, or none; got {len(self.max_resolution)}"
        # Frequencies go from 1 up to half of it.
        if any(resolution < 2 for resolution in self.max_resolution):
            yield "max_resolution", f"must be at least 2 on every axis, got {tuple(self.max_resolution)}"
        if self.kind == "learned" and self.learned_width < 1:
            yield "learned_width", f"must be at least 1, got {self.learned_width}"
        yield from not_negative(project_to=self.project_to)
