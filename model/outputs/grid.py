"""Values on a grid: an input that is reconstructed, cell by cell."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost, linear
from model.config.grids import PositionsConfig, Problems, not_negative
from model.outputs.output import Network, Output

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class CellsOutput(Output):
    """Values on a grid, each asked for by its position: an image, a clip, a recording or an array.

    `target` is the input that is reconstructed; empty for the one of this answer's name.
    """

    shape: tuple[int, ...] = ()
    """Queries along each axis; empty for one a cell of the input, or one a patch of a recording."""
    num_channels: int = 0
    """Values that each query is answered with, such as the samples of a patch of sound; 0 for those of the input."""
    positions: PositionsConfig = field(default_factory=lambda: PositionsConfig(num_bands=32))
    """The queries; kind "fourier" computes them, kind "learned" has one learned row a query."""
    train_queries: int = 0
    """The number of queries in training, random for every batch; 0 decodes all, as evaluation does."""
    # As Perceiver IO's autoencoder of clips (appendix I).
    loss: Literal["absolute", "squared"] = "absolute"
    """The loss on the difference to the true values."""
    value_range: float = 0.0
    """The range of the true values, for the signal-to-noise ratio; 0 means 1 for pixels, 2 for audio, and for
    other inputs no such ratio."""

    def named(self, name: str, network: Network) -> "CellsOutput":
        """Return this answer with its input, and with the shape of that where none is given."""
        target = self.target or name
        known = network.input_named(target)
        shape, num_channels = tuple(self.shape), self.num_channels
        if known is not None:
            # Of an array a patch has a side on each axis.
            patch = getattr(known, "patch", 1)
            whole, of_cell = cells(known.shape, patch if isinstance(patch, int) else prod(patch))
            # A recording has one axis of samples: fewer queries than samples are answered with several samples each.
            if shape and len(known.shape) == 1:
                of_cell = known.shape[0] // max(prod(shape), 1)
            shape, num_channels = shape or whole, num_channels or of_cell
        value_range = self.value_range or (known.value_range if known else 0.0)
        return replace(self, target=target, shape=shape, num_channels=num_channels, value_range=value_range)

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the input."""
        return (("input", self.target),)

    def own_width(self, network: Network) -> int:  # noqa: ARG002
        """Return the channels of a position."""
        return self.positions.width(len(self.shape))

    def num_queries(self, network: Network) -> int:  # noqa: ARG002
        """Return the cells of the grid."""
        return self.num_cells

    @property
    def num_cells(self) -> int:
        """Cells of the grid."""
        return prod(self.shape)

    def num_trained(self, network: Network) -> int:
        """Return the cells that training asks for."""
        # Memory and time of training go by what is asked; evaluation decodes all in chunks.
        return self.train_queries or self.num_queries(network)

    def queries(self, network: Network) -> "nn.Module":
        """Return what computes or holds the positions of the cells."""
        from model.outputs.modules.queries import GridQueries, LearnedQueries, ProjectedQueries

        if self.positions.kind == "fourier":
            return GridQueries(self.shape, self.positions)
        if self.positions.project_to:
            return ProjectedQueries(self.num_queries(network), self.positions, self.shape)
        return LearnedQueries(self.num_queries(network), self.positions.learned_width, grid=self.shape)

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":  # noqa: ARG002
        """Return a linear layer from a row to the values of its cell."""
        from model.outputs.modules.heads import GridHead
        from model.parameters import Projection

        return GridHead(Projection(width, self.num_channels), tuple(self.shape))

    def input_problems(self, name: str, shape: tuple[int, ...]) -> Problems:
        """Yield (key, sentence) where the input has another shape than the answer."""
        answered = (*self.shape, self.num_channels)
        # Sound is cut into patches: a query answers several samples.
        is_cut = len(shape) == 1 and prod(answered) == prod(shape)
        if answered != shape and not is_cut:
            yield (
                "shape",
                f"answers {answered}, data.inputs.{name} delivers {shape}; make them agree, or leave shape out",
            )

    @property
    def fourier_resolution(self) -> tuple[int, ...]:
        """Twice the highest frequency of Fourier queries on each axis."""
        return self.positions.fourier_resolution(self.shape)

    def answers_points(self) -> bool:
        """Return True: a cell is answered without the others."""
        return True

    def queries_cost(self, network: Network) -> Cost:
        """Return the cost of learned rows; positions that are computed have none."""
        if self.positions.kind != "learned":
            return Cost()
        width, project_to = self.positions.learned_width, self.positions.project_to
        return Cost(self.num_queries(network) * width) + (linear(width, project_to) if project_to else Cost())

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:  # noqa: ARG002
        """Return the cost of the layer."""
        return linear(width, self.num_channels, num_asked)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        if self.shape and min(self.shape) < 1:
            yield "shape", f"needs at least one axis and no empty one, got {tuple(self.shape)}"
            return
        yield from not_negative(
            num_channels=self.num_channels, train_queries=self.train_queries, value_range=self.value_range
        )
        if self.positions.kind == "none":
            yield "positions.kind", "must be fourier or learned, got none: queries would all be alike"

    def network_problems(self, network: Network) -> Problems:  # noqa: ARG002
        """Yield (key, sentence) of what is wrong with the grid as it is with this network's inputs."""
        if not self.shape or not self.num_channels:
            yield "shape", f"is not set, and there is no inputs.{self.target} that would decide it; set both, or target"
            return
        if self.train_queries > self.num_cells:
            yield "train_queries", f"must be from 0 to the {self.num_cells} that there are, got {self.train_queries}"
        yield from ((f"positions.{key}", sentence) for key, sentence in self.positions.problems(self.shape))


@dataclass(frozen=True, kw_only=True)
class GridOutput(CellsOutput):
    """An input that is reconstructed from what was read, all of which is shown: autoencoding."""

    kind: Literal["grid"] = "grid"
    """Chooses this kind of answer."""


def cells(shape: tuple[int, ...], patch: int) -> tuple[tuple[int, ...], int]:
    """Return the grid of an input of this shape and the values of a cell: its last axis, or a patch of its only one."""
    if len(shape) == 1:
        return (shape[0] // patch,), patch
    return tuple(shape[:-1]), int(shape[-1])
