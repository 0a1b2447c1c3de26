"""Arrays with any number of axes: cells, or boxes of them, each with its place on the axes or at given coordinates."""

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config.cost import Cost, Kept, linear
from model.config.grids import PositionsConfig, Problems
from model.modalities.input import FEW_TOKENS, Input, cuts, few_bands

if TYPE_CHECKING:
    from torch import nn

CHANNEL = "channel"
_GIVEN_RESOLUTION = 64
"""Twice the highest frequency of given coordinates where none is asked for: that of outputs of kind points."""


@dataclass(frozen=True)
class ArrayInput(Input):
    """An array; the axis of channels holds the values of a cell, all others are axes of the grid."""

    modality: Literal["array"] = "array"
    shape: tuple[int, ...] = ()
    """Length of each axis; empty as in the data."""
    axes: tuple[str, ...] = ()
    """Names of the axes, of which one may be channel; empty as in the data, or with channels as the last axis."""
    patch: tuple[int, ...] = ()
    """Cells along each axis of the grid that make one token; empty means one."""
    project_to: int = 0
    """Channels of a linear layer over the patch; 0 means no such layer."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on the axes of the grid, or Fourier features of given coordinates."""
    num_axes: int = 0
    """Coordinates of a cell that come with each sample, best within [-1, 1]; 0 as in the data, or none."""

    sizes: ClassVar[tuple[str, ...]] = ("shape",)
    optional: ClassVar[tuple[str, ...]] = ("project_to", "num_axes")

    @property
    def channel_axis(self) -> int | None:
        """The axis that holds the values of a cell; None where a cell is one value."""
        if not self.axes:
            return len(self.shape) - 1
        return self.axes.index(CHANNEL) if CHANNEL in self.axes else None

    @property
    def cells(self) -> tuple[int, ...]:
        """Cells along each axis of the grid."""
        return tuple(length for axis, length in enumerate(self.shape) if axis != self.channel_axis)

    @property
    def sides(self) -> tuple[int, ...]:
        """Cells of a token along each axis of the grid."""
        return tuple(self.patch) or (1,) * len(self.cells)

    @property
    def grid(self) -> tuple[int, ...]:
        """Tokens along each axis of the grid."""
        return tuple(length // side for length, side in zip(self.cells, self.sides, strict=True))

    @property
    def entries_per_row(self) -> int:
        """Cells of a token along the first axis of the array; 0 where that is the channels, which all tokens share."""
        return self.sides[0] if self.channel_axis != 0 else 0

    @property
    def is_separable(self) -> bool:  # type: ignore[override]  # it depends on the axes here
        """Whether there are two axes or more: on one nothing is won, and given coordinates are on no axis."""
        return len(self.cells) > 1 and not self.num_axes

    @property
    def places(self) -> tuple[int, ...] | None:
        """The cells, and the coordinates of one."""
        return (*self.cells, self.num_axes) if self.num_axes else None

    @property
    def position_grid(self) -> tuple[int, ...]:
        """The axes of the grid, or the coordinates."""
        # Without given coordinates the first is empty, and the grid counts.
        return (_GIVEN_RESOLUTION,) * self.num_axes or self.grid

    @property
    def raw_width(self) -> int:
        """Channels before the linear layer."""
        width = 1 if self.channel_axis is None else self.shape[self.channel_axis]
        for side in self.sides:
            width *= side
        return width

    @property
    def content_width(self) -> int:
        """Channels of a patch or of the linear layer."""
        return self.project_to or self.raw_width

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.values import BoxesAdapter, PlacedAdapter

        return PlacedAdapter(self) if self.num_axes else BoxesAdapter(self)

    def cost(self) -> Cost:
        """Return the cost of the linear layer and of learned positions."""
        project = linear(self.raw_width, self.project_to, self.num_tokens) if self.project_to else Cost()
        return project + super().cost()

    def kept(self) -> Kept:
        """Return what the linear layer keeps."""
        return Kept(self.num_tokens * self.raw_width) if self.project_to else Kept()

    def fitted(self) -> dict[str, Any]:
        """Return the cells of a patch, and bands."""
        lengths, sides = self.cells, [1] * len(self.cells)
        # The longest axis is cut first, and any as far as a power of two divides it.
        while prod(lengths) // prod(sides) > FEW_TOKENS:
            tokens = [
                length // side if length // side % 2 == 0 else 0 for length, side in zip(lengths, sides, strict=True)
            ]
            # No axis is even any more: more tokens than wanted, and still exact patches.
            if not max(tokens):
                break
            sides[tokens.index(max(tokens))] *= 2
        grid = [length // side for length, side in zip(lengths, sides, strict=True)]
        return {"patch": sides, "positions": few_bands(grid)}

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        if min(self.shape) < 1 or not self.cells:
            yield "shape", f"needs an axis beside the channels and no empty one, got {tuple(self.shape)}"
        elif self.axes and len(self.axes) != len(self.shape):
            yield "axes", f"needs a name for each of the {len(self.shape)} axes, got {tuple(self.axes)}"
        elif len(self.sides) != len(self.cells) or min(self.sides) < 1:
            yield "patch", f"needs {len(self.cells)} numbers from 1, one an axis of the grid, got {tuple(self.patch)}"
        elif self.num_axes and (max(self.sides) > 1 or self.positions.kind != "fourier"):
            key, need = ("patch", "of 1") if max(self.sides) > 1 else ("positions.kind", "fourier")
            yield key, f"needs to be {need} where each cell has coordinates of its own; leave it out"
        else:
            # The first side that its patch does not divide; (1, 1) has no problem.
            yield from cuts(shape=next(((c, s) for c, s in zip(self.cells, self.sides, strict=True) if c % s), (1, 1)))
            yield from super().joint_problems()
