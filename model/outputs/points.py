"""Values at places that each sample names: a field that is decoded anywhere, between or beyond what was read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost, linear
from model.config.grids import Problems, not_negative, positive
from model.outputs.output import Network, Output

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PointsOutput(Output):
    """Values at given coordinates, each asked for by Fourier features of its place.

    `target` is the input that holds the true values (N, channels), NaN where there is none; empty for the one of this
    answer's name. The network need not read it, nor the coordinates.
    """

    kind: Literal["points"] = "points"
    """Chooses this kind of answer."""
    coordinates: str = ""
    """The input that holds the places (N, axes) at which values are asked, best within [-1, 1]; NAME.coordinates for
    those that an array brings with it."""
    num_axes: int = 2
    """Number of coordinates of a place."""
    num_channels: int = 1
    """Number of values at a place."""
    num_points: int = 1_024
    """Places of a sample, as far as costs are concerned; a batch may ask for any number."""
    num_bands: int = 32
    """Frequencies a coordinate, evenly spaced from 1 to the maximum."""
    max_frequency: float = 32.0
    """Highest frequency, in half periods a unit."""
    train_points: int = 0
    """The number of positions in training, random for every batch; 0 decodes all, as evaluation does."""
    loss: Literal["squared", "absolute"] = "squared"
    """The loss on the difference to the true values."""

    def named(self, name: str, network: Network) -> "PointsOutput":  # noqa: ARG002
        """Return this answer with the input that holds its values."""
        return self if self.target else replace(self, target=name)

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the values and the places."""
        return ("input", self.target), ("input", self.coordinates)

    def input_problems(self, name: str, shape: tuple[int, ...]) -> Problems:
        """Yield (key, sentence) where places have other axes, or values other channels."""
        # One method for both inputs: the name says which of the two it is about.
        key, number = ("num_axes", self.num_axes) if name == self.coordinates else ("num_channels", self.num_channels)
        there = shape[1] if len(shape) == 2 else 1  # a number at a place needs no axis of its own
        if len(shape) not in (1, 2) or there != number:
            yield key, f"is {number}, but data.inputs.{name} delivers {shape}; make them agree"

    def asked_at(self) -> str:
        """Return the input that holds the places."""
        return self.coordinates

    def own_width(self, network: Network) -> int:  # noqa: ARG002
        """Return the channels of a place's features."""
        return self.num_axes * (2 * self.num_bands + 1)

    def num_queries(self, network: Network) -> int:  # noqa: ARG002
        """Return the places of a sample."""
        return self.num_points

    def num_trained(self, network: Network) -> int:
        """Return the places that training asks for."""
        return self.train_points or self.num_queries(network)

    def queries(self, network: Network) -> "nn.Module":  # noqa: ARG002
        """Return what computes the features of places."""
        from model.outputs.modules.queries import PlaceQueries

        # A resolution is twice the highest frequency that it can show.
        return PlaceQueries(self.num_bands, [2 * self.max_frequency] * self.num_axes)

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":  # noqa: ARG002
        """Return a linear layer from a row to the values at its place."""
        from model.outputs.modules.heads import PlaceHead

        return PlaceHead(width, self.num_channels)

    def queries_cost(self, network: Network) -> Cost:  # noqa: ARG002
        """Return nothing: features are computed."""
        return Cost()

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:  # noqa: ARG002
        """Return the cost of the layer."""
        return linear(width, self.num_channels, num_asked)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        names = ("num_axes", "num_channels", "num_points", "num_bands")
        yield from positive(**{name: getattr(self, name) for name in names})
        yield from not_negative(train_points=self.train_points)
        if not 1 <= self.max_frequency < inf:
            yield "max_frequency", f"must be at least 1, and finite, got {self.max_frequency}"
        if not self.coordinates:
            sentence = "is not set; set it to the input that holds the places at which values are asked"
            yield "coordinates", f"{sentence}, or to NAME.coordinates of an array"
