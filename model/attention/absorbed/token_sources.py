"""Normalised tokens in two representations: as arrays, and as sums over the axes of their grid.

B samples, N vectors, M tokens, C channels of a token, c of its content, P of its position
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from model.config.attention import NormKind
from model.positions import whole_table

# Of every LayerNorm.
EPSILON = 1e-5


class TokenSource(ABC):
    """Normalised tokens, however they are held."""

    num_samples: int
    num_tokens: int
    num_channels: int
    """The channels of a token and of the vectors, including the padding with zeros."""
    row: int
    """A tile holds a multiple of this many tokens."""
    dtype: torch.dtype
    """The type of the scores."""

    @abstractmethod
    def prepared(self, vectors: Float[Tensor, "b N C"]) -> tuple[Tensor, ...]:
        """Return what `scores` needs of vectors, once for all tiles."""

    @abstractmethod
    def scores(
        self, samples: slice, tokens: slice, vectors: tuple[Tensor, ...], out: Float[Tensor, "b N T"]
    ) -> Float[Tensor, "b N T"]:
        """Write the products of prepared vectors with the tokens to `out`, and return it."""

    @abstractmethod
    def sums(self, vectors: tuple[Tensor, ...]) -> Float[Tensor, "b N _"]:
        """Return zeros to which `add` can add, one row for each vector."""

    @abstractmethod
    def add(self, sums: Float[Tensor, "b N _"], samples: slice, tokens: slice, weights: Float[Tensor, "b N T"]) -> None:
        """Add the weighted tokens to the sums; the weights may be overwritten."""

    @abstractmethod
    def mixed(self, sums: Float[Tensor, "b N _"]) -> Float[Tensor, "b N C"]:
        """Return the sums in the channels of a token."""


class DenseTokens(TokenSource):
    """Tokens that are held whole."""

    row = 1

    def __init__(self, values_BMC: Float[Tensor, "B M C"]) -> None:
        # Their gradient is computed by hand; with a graph they would be kept a second time.
        self.values_BMC = values_BMC.detach()
        self.num_samples, self.num_tokens, self.num_channels = values_BMC.shape
        self.dtype = values_BMC.dtype

    def prepared(self, vectors: Float[Tensor, "b N C"]) -> tuple[Tensor, ...]:
        """Return the vectors."""
        return (vectors,)

    def scores(
        self, samples: slice, tokens: slice, vectors: tuple[Tensor, ...], out: Float[Tensor, "b N T"]
    ) -> Float[Tensor, "b N T"]:
        """Write the products of the vectors with the tokens to `out`, and return it."""
        return torch.bmm(vectors[0], self.values_BMC[samples, tokens].mT, out=out)

    def sums(self, vectors: tuple[Tensor, ...]) -> Float[Tensor, "b N C"]:
        """Return zeros, in float32 at the least: tiles are many."""
        return torch.zeros_like(vectors[0], dtype=torch.promote_types(self.dtype, torch.float32))

    def add(self, sums: Float[Tensor, "b N C"], samples: slice, tokens: slice, weights: Float[Tensor, "b N T"]) -> None:
        """Add the weighted tokens to the sums."""
        sums += weights @ self.values_BMC[samples, tokens]

    def mixed(self, sums: Float[Tensor, "b N C"]) -> Float[Tensor, "b N C"]:
        """Return the sums."""
        return sums


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
        positions_BMP = positions_MP.to(self.content_BMc.dtype).expand(self.content_BMc.shape[0], -1, -1)
        return torch.cat([self.content_BMc, positions_BMP], dim=-1)


class SeparableTokens(TokenSource):
    """The tokens of a grid with Fourier positions, never put together.

    A position is the sum of what each axis says, so that its product with a vector is a sum of one number an axis, and
    a weighted sum of positions needs the weights' sums along the axes only: the cost does not grow with the bands.
    A norm keeps that form: a token's mean and deviation are numbers that multiply and shift.
    """

    def __init__(self, grid: GridTokens, norm: NormKind = "layer") -> None:
        # At least fp32, under autocast too: a variance as the difference of two means has no digits to spare.
        dtype = torch.promote_types(grid.content_BMc.dtype, torch.float32)
        self.dtype = dtype
        content_BMc = grid.content_BMc.to(dtype)
        self.tables = [table.to(dtype) for table in grid.axis_tables]
        self.shape = tuple(table.shape[0] for table in self.tables)
        self.num_samples, self.num_tokens = content_BMc.shape[:2]
        # A tile is whole rows of the first axis, so that its scores are that axis' numbers plus those of all others.
        self.row = prod(self.shape[1:])
        self.num_channels = width = content_BMc.shape[2] + self.tables[0].shape[1]
        mean_BM = (content_BMc.sum(dim=-1) + self._along_axes([table.sum(dim=-1) for table in self.tables])) / width
        # RMSNorm subtracts nothing, which is a mean of 0.
        mean_BM = torch.zeros_like(mean_BM) if norm == "rms" else mean_BM
        squares = content_BMc.square().sum(dim=-1) + self._along_axes([t.square().sum(dim=-1) for t in self.tables])
        self.inverse_BM = (squares / width - mean_BM.square() + EPSILON).rsqrt()
        # The mean is one more channel of the content, with the sum of a vector as that channel's weight.
        extended = torch.cat([content_BMc, -mean_BM[..., None]], dim=-1)
        self.content_BcM = (extended * self.inverse_BM[..., None]).mT.contiguous()

    def products(self, vectors: Float[Tensor, "b N C"]) -> tuple[Tensor, ...]:
        """Return the vectors' content with their sum, and their product with each place on each axis."""
        vectors = vectors.to(self.dtype)
        content_width = self.content_BcM.shape[1] - 1
        content = torch.cat([vectors[..., :content_width], vectors.sum(dim=-1, keepdim=True)], dim=-1)
        return content, *(vectors[..., content_width:] @ table.mT for table in self.tables)

    def prepared(self, vectors: Float[Tensor, "b N C"]) -> tuple[Tensor, ...]:
        """Return the vectors' content with their sum, and their product with each place on the first and other axes."""
        content, first, *others = self.products(vectors)
        rest = over_axes(others).flatten(2) if others else torch.zeros_like(first[..., :1])
        return content, first, rest

    def scores(
        self, samples: slice, tokens: slice, vectors: tuple[Tensor, ...], out: Float[Tensor, "b N T"]
    ) -> Float[Tensor, "b N T"]:
        """Write the products of the vectors with the tokens to `out`, and return it."""
        content, first, rest = vectors
        torch.add(first[..., self._rows(tokens), None], rest[:, :, None], out=out.view(*out.shape[:2], -1, self.row))
        out.mul_(self.inverse_BM[samples, None, tokens])
        return torch.baddbmm(out, content, self.content_BcM[samples, :, tokens], out=out)

    def sums(self, vectors: tuple[Tensor, ...]) -> Float[Tensor, "b N _"]:
        """Return zeros: for the content, and for every place on each axis."""
        return vectors[0].new_zeros(*vectors[0].shape[:2], vectors[0].shape[2] + sum(self.shape))

    def add(self, sums: Float[Tensor, "b N _"], samples: slice, tokens: slice, weights: Float[Tensor, "b N T"]) -> None:
        """Add the weighted content and the weights along the axes to the sums; the weights are overwritten."""
        content, *along = self._parts(sums)
        content += weights @ self.content_BcM[samples, :, tokens].mT
        # Content was multiplied with the deviation once for all reads; positions are shared by all samples and cannot
        # be.
        scaled = weights.mul_(self.inverse_BM[samples, None, tokens]).view(*weights.shape[:2], -1, *self.shape[1:])
        for axis, places in enumerate(along):
            others = [other - len(self.shape) for other in range(len(self.shape)) if other != axis]
            part = places[..., self._rows(tokens)] if axis == 0 else places
            part += scaled.sum(dim=others) if others else scaled

    def mixed(self, sums: Float[Tensor, "b N _"]) -> Float[Tensor, "b N C"]:
        """Return the sums in the channels of a token."""
        content, *along = self._parts(sums)
        places = reduce(torch.add, (weights @ table for weights, table in zip(along, self.tables, strict=True)))
        # The last sum is that of the means, which LayerNorm subtracts from every channel of a token.
        return torch.cat([content[..., :-1], places], dim=-1) + content[..., -1:]

    def _parts(self, sums: Float[Tensor, "b N _"]) -> tuple[Tensor, ...]:
        """The sums of the content, and those along each axis."""
        ends = accumulate([self.content_BcM.shape[1], *self.shape[:-1]])
        return sums.tensor_split(list(ends), dim=-1)

    def _rows(self, tokens: slice) -> slice:
        """The places of a tile on the first axis."""
        return slice(tokens.start // self.row, tokens.stop // self.row)

    def _along_axes(self, numbers: list[Tensor]) -> Float[Tensor, " M"]:
        """The sum over axes of one number a place."""
        return over_axes([number[None, None] for number in numbers]).flatten()


def over_axes(numbers: list[Tensor]) -> Tensor:
    """Return the sum over axes of (b, N, places): an array (b, N, *places of every axis)."""
    spread = [
        number.reshape(*number.shape[:2], *(-1 if other == axis else 1 for other in range(len(numbers))))
        for axis, number in enumerate(numbers)
    ]
    return reduce(torch.add, spread)
