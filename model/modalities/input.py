"""What every modality says of itself to the network: one frozen dataclass each, which is also the section of an input.

    model.inputs.photo: {patch: 4}   ->   ImageInput(height=224, width=224, patch=4), sized as data.inputs.photo

An input becomes a grid of tokens: `grid` is its shape, `num_tokens` the product, `token_width` the channels. Its fields
are what a user configures, its methods all that the network asks: the module that makes tokens of it, and what that
costs. Nothing else asks which modality an input is of: a further one is a file such as image.py, and a line in
catalogue.py. The dataclasses import the standard library alone, so that a configuration loads without torch; modules
are imported by the methods that make them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from model.config.cost import Cost, Kept, linear
from model.config.grids import PositionsConfig, Problems, not_negative, positive

if TYPE_CHECKING:
    from torch import Tensor, nn

COORDINATES = "coordinates"
"""NAME.coordinates is the array with the coordinates of the cells of input NAME."""
UNSAID = "is said neither here nor by the input of this name in data.inputs; set it in one of the two"

FEW_TOKENS = 1_024
"""Of an input of a small network."""


@dataclass(frozen=True)
class Input(ABC):
    """An input of a network. A subclass is a frozen dataclass with a field `modality: Literal["name"] = "name"`."""

    modality: str = ""
    """Chooses this kind of input; empty of what a run reads, whose data say it."""
    sizes: ClassVar[tuple[str, ...]] = ()
    """Fields that are needed and may be left to the data."""
    optional: ClassVar[tuple[str, ...]] = ("num_channels", "project_to")
    """Numbers that may be 0 where a network stands alone."""
    dtype: ClassVar[str] = "float32"
    """Type of the values as the loader delivers them; an input of bytes, or of ids, takes no other numbers."""
    is_whole: ClassVar[bool] = False
    """Whether a sample has all of it or nothing: a part of one is never read."""
    value_range: ClassVar[float] = 0.0
    """Distance from the lowest to the highest value as the network reads it; 0 where nobody knows."""
    is_separable: ClassVar[bool] = False
    """Whether the content of a token does not depend on its place, so that positions may be read axis by axis."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample as the loader delivers it."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, ...]:
        """Tokens along each axis."""

    @property
    @abstractmethod
    def content_width(self) -> int:
        """Channels of a token before its position."""

    @abstractmethod
    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens (B, M, C) of values as the loader delivers them."""

    @property
    def entries_per_row(self) -> int:
        """Entries of the input's first axis that one row of the grid covers: a length counts those entries."""
        return 1

    @property
    def num_tokens(self) -> int:
        """Tokens of one sample."""
        return prod(self.grid)

    @property
    def places(self) -> tuple[int, ...] | None:
        """Shape of the coordinates of a sample's cells, NAME.coordinates beside NAME; None where the grid says them."""
        return None

    @property
    def has_axes(self) -> bool:
        """Whether a token's place is a cell of its grid; else it is coordinates, or the tokens are a set."""
        return self.places is None

    def unknown(self, value: "Tensor") -> "Tensor | None":  # noqa: ARG002 - of inputs that can be hidden
        """Return which tokens of a batch are not known, (B, M) bool, and give way to the mask token; None for none."""
        return None

    @property
    def position_grid(self) -> tuple[int, ...]:
        """What the axes of positions are, and twice the highest frequency on each where none is given."""
        return self.grid

    @property
    def token_positions(self) -> PositionsConfig | None:
        """What a token knows of its place in the grid beside its content; None where the content says it."""
        # Points and texts have no such field: they say in another way where a token is.
        return getattr(self, "positions", None)

    @property
    def fourier_resolution(self) -> tuple[int, ...]:
        """Twice the highest frequency of its Fourier positions on each axis; empty without such positions."""
        positions = self.token_positions
        return positions.fourier_resolution(self.position_grid) if positions else ()

    @property
    def token_width(self) -> int:
        """Channels of a token with its position."""
        positions = self.token_positions
        return self.content_width + (positions.width(len(self.position_grid)) if positions else 0)

    @property
    def ids(self) -> tuple[int, int] | None:
        """The least id and the one after the greatest, of an input of ids; None of one of numbers."""
        return None

    @property
    def has_stem(self) -> bool:
        """Whether a convolution with a batch norm comes first."""
        return bool(getattr(self, "conv_stem", False))

    @property
    def learns(self) -> bool:
        """Whether its tokens depend on parameters, so that the backward pass must reach them."""
        positions = self.token_positions
        # Where nothing is learned no gradient of the tokens is computed, and they are the largest array of the network.
        is_learned = positions is not None and positions.kind == "learned"
        return is_learned or self.has_stem or bool(getattr(self, "project_to", 0))

    def with_sizes(self, sizes: Mapping[str, Any]) -> "Input":
        """Return the input with those sizes that are not said here as the data have them."""
        # A size that is written as its default cannot be told from one that is left out: both are the data's.
        unsaid = {name for name, default in self._defaults().items() if getattr(self, name) == default}
        return replace(self, **{name: size for name, size in sizes.items() if name in unsaid})

    def equal_sizes(self, sizes: Mapping[str, Any]) -> list[str]:
        """Return the names of the sizes that the data say as well: without them with_sizes() gives them back."""
        # The input itself is equal to no size: one that the data do not say is not left out.
        return [name for name in self._defaults() if sizes.get(name, self) == getattr(self, name)]

    def _defaults(self) -> dict[str, Any]:
        return {field.name: field.default for field in fields(self)}

    def fitted(self) -> dict[str, Any]:
        """Return keys of an input of these sizes that suit a small network: few tokens, few bands."""
        return {}

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Return whether it reads values of that shape."""
        return shape == self.shape

    def cost(self) -> Cost:
        """Return the cost of the adapter."""
        positions = self.token_positions
        if positions is None or positions.kind != "learned":
            return Cost()
        table = Cost(self.num_tokens * positions.learned_width)
        # The layer over the positions runs once a batch, not once a sample: its operations are not counted.
        return table + (linear(positions.learned_width, positions.project_to) if positions.project_to else Cost())

    def kept(self) -> Kept:
        """Return what the adapter keeps of one sample for the backward pass."""
        return Kept()

    def meaning(self, name: str) -> str:
        """Return what the values of the input are, in words for whoever calls an exported network."""
        return f"{self.dtype} ({axes(self.shape)}), as data.inputs.{name} of the run's config.yaml prepares it"

    def problems(self) -> Problems:
        """Yield (key, sentence) of sizes that are missing; where all are there, of what does not go together."""
        # type() and not isinstance, or flags would be sizes.
        numbers = {name: value for name, value in vars(self).items() if type(value) is int}
        free = {name: numbers.pop(name) for name in self.optional if name in numbers}
        unsaid = [name for name in self.sizes if not getattr(self, name)]
        found = [(name, UNSAID) for name in unsaid]
        found += [*positive(**{name: size for name, size in numbers.items() if name not in unsaid})]
        found += [*not_negative(**free)]
        # Patches are compared with whole sizes alone: one that is missing is 0, and would be divided by.
        yield from found or self.joint_problems()

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together in a grid whose sizes are positive."""
        positions = self.token_positions
        for key, sentence in positions.problems(self.position_grid) if positions else ():
            yield f"positions.{key}", sentence


def coarsest(choices: Iterable[tuple[int, ...]], lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the first patch that divides the lengths and leaves few tokens; else the last one that divides them."""
    dividing = [patch for patch in choices if all(length % of == 0 for length, of in zip(lengths, patch, strict=True))]
    # The first that is small enough: choices come from fine to coarse.
    few = (patch for patch in dividing if prod(lengths) // prod(patch) <= FEW_TOKENS)
    return next(few, dividing[-1] if dividing else (1,) * len(lengths))


def few_bands(grid: Sequence[int]) -> dict[str, Any]:
    """Return positions with as many bands as the grid has use for, at most 16."""
    # A grid shows no frequency above half of its longest axis.
    return {"num_bands": max(1, min(16, max(grid) // 2))}


def cuts(**sides: tuple[int, int]) -> Problems:
    """Yield every side that its patches do not divide."""
    for name, (side, patch) in sides.items():
        if side % patch:
            yield name, f"must be a multiple of the patch ({patch}), got {side}"


def axes(shape: tuple[int, ...]) -> str:
    """Return the axes of a batch of that shape in words."""
    return ", ".join(["batch", *map(str, shape)])
