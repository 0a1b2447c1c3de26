"""Normalised tokens in two forms: as they are, and as what the axes of their grid say of them.

B samples, N vectors, M tokens, C channels of a token, c of its content, P of its position
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from model.positions import whole_table

# Of every LayerNorm.
EPSILON = 1e-5


class TokenSource(ABC):
    """Normalised tokens, however they are held."""

    num_samples: int
    num_tokens: int
    row: int
    """A tile holds a multiple of this many tokens."""

    @abstractmethod
    def prepared(self, samples: slice, vectors: Float[Tensor, "b N C"]) -> tuple[Tensor, ...]:
        """Return what `scores` needs of vectors, once for all tiles."""

    @abstractmethod
    def scores(self, samples: slice, tokens: slice, prepared: tuple[Tensor, ...]) -> Float[Tensor, "b N T"]:
        """Return a new array: the products of the vectors with the tokens."""

    @abstractmethod
    def mixed(self, samples: slice, tokens: slice, weights: Float[Tensor, "b N T"]) -> Float[Tensor, "b N C"]:
        """Return the sums of the tokens, weighted; the weights may be overwritten."""


class DenseTokens(TokenSource):
    """Tokens that are held whole."""

    row = 1

    def __init__(self, values_BMC: Float[Tensor, "B M C"]) -> None:
        self.values_BMC = values_BMC.detach()
        self.num_samples, self.num_tokens = values_BMC.shape[:2]

    def prepared(self, samples: slice, vectors: Float[Tensor, "b N C"]) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Return the vectors."""
        return (vectors,)

    def scores(self, samples: slice, tokens: slice, prepared: tuple[Tensor, ...]) -> Float[Tensor, "b N T"]:
        """Return the products of the vectors with the tokens."""
        return prepared[0] @ self.values_BMC[samples, tokens].mT

    def mixed(self, samples: slice, tokens: slice, weights: Float[Tensor, "b N T"]) -> Float[Tensor, "b N C"]:
        """Return the sums of the tokens, weighted."""
        return weights @ self.values_BMC[samples, tokens]


@dataclass(frozen=True)
class GridTokens:
    """Tokens of a grid before they are put together."""

    content_BMc: Float[Tensor, "B M c"]  # noqa: N815
    """What each token holds."""
    axis_tables: tuple[Float[Tensor, "_ P"], ...]
    """What a place on each axis adds to the position, in the position's channels; zeros in those of other axes."""

    def whole(self) -> Float[Tensor, "B M C"]:
        """Return the tokens put together."""
        positions_MP = whole_table(self.axis_tables)
        return torch.cat([self.content_BMc, positions_MP.expand(self.content_BMc.shape[0], -1, -1)], dim=-1)


class SeparableTokens(TokenSource):
    """The tokens of a grid with Fourier positions, never put together.

    A position is the sum of what each axis says, so that its product with a vector is a sum of one number an axis, and
    a weighted sum of positions needs the weights' sums along the axes only: the cost does not grow with the bands.
    LayerNorm keeps that form: a token's mean and deviation are numbers that multiply and shift.
    """

    def __init__(self, grid: GridTokens) -> None:
        dtype = torch.promote_types(grid.content_BMc.dtype, torch.float32)
        content_BMc = grid.content_BMc.to(dtype)
        self.tables = [table.to(dtype) for table in grid.axis_tables]
        self.shape = tuple(table.shape[0] for table in self.tables)
        self.num_samples, self.num_tokens = content_BMc.shape[:2]
        self.row = prod(self.shape[1:])
        width = content_BMc.shape[2] + self.tables[0].shape[1]
        mean_BM = (content_BMc.sum(dim=-1) + self._along_axes([table.sum(dim=-1) for table in self.tables])) / width
        squares = content_BMc.square().sum(dim=-1) + self._along_axes([t.square().sum(dim=-1) for t in self.tables])
        self.inverse_BM = (squares / width - mean_BM.square() + EPSILON).rsqrt()
        # The mean is one more channel of the content, with the sum of a vector as that channel's weight.
        extended = torch.cat([content_BMc, -mean_BM[..., None]], dim=-1)
        self.content_BcM = (extended * self.inverse_BM[..., None]).mT.contiguous()

    def prepared(self, samples: slice, vectors: Float[Tensor, "b N C"]) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Return the vectors' content with their sum, and their product with each place on each axis."""
        vectors = vectors.to(self.content_BcM.dtype)
        content_width = self.content_BcM.shape[1] - 1
        content = torch.cat([vectors[..., :content_width], vectors.sum(dim=-1, keepdim=True)], dim=-1)
        return content, *(vectors[..., content_width:] @ table.mT for table in self.tables)

    def scores(self, samples: slice, tokens: slice, prepared: tuple[Tensor, ...]) -> Float[Tensor, "b N T"]:
        """Return the products of the vectors with the tokens."""
        content, first, *others = prepared
        scores = content @ self.content_BcM[samples, :, tokens]
        rows = slice(tokens.start // self.row, tokens.stop // self.row)
        along = self._broadcast([first[..., rows], *others])
        inverse = self.inverse_BM[samples, None, tokens]
        return scores.addcmul_(along.reshape(scores.shape), inverse)

    def mixed(self, samples: slice, tokens: slice, weights: Float[Tensor, "b N T"]) -> Float[Tensor, "b N C"]:
        """Return the sums of the tokens, weighted; the weights are overwritten."""
        content = weights @ self.content_BcM[samples, :, tokens].mT
        rows = slice(tokens.start // self.row, tokens.stop // self.row)
        scaled = weights.mul_(self.inverse_BM[samples, None, tokens])
        grid = scaled.reshape(*scaled.shape[:2], -1, *self.shape[1:])
        sums_along = []
        for axis, table in enumerate(self.tables):
            others = [other - len(self.shape) for other in range(len(self.shape)) if other != axis]
            sums_along.append(grid.sum(dim=others) @ (table[rows] if axis == 0 else table))
        places = torch.stack(sums_along).sum(dim=0)
        return torch.cat([content[..., :-1], places], dim=-1) + content[..., -1:]

    def _along_axes(self, numbers: list[Tensor]) -> Float[Tensor, " M"]:
        """The sum over axes of one number a place."""
        return self._broadcast([number[None, None] for number in numbers]).flatten()

    def _broadcast(self, numbers: list[Tensor]) -> Tensor:
        """The sum over axes of (b, N, places): an array (b, N, *places of every axis)."""
        spread = [
            number.reshape(*number.shape[:2], *(-1 if other == axis else 1 for other in range(len(numbers))))
            for axis, number in enumerate(numbers)
        ]
        return reduce(torch.add, spread)
