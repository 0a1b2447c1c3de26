"""The decoder's queries: one row of channels for every value that is asked for.

B samples (1 where all samples ask the same), O queries, E channels of a query
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.config.grids import PositionsConfig
from model.modalities.byte_array import Tokens
from model.parameters import Projection, Table
from model.positions import cell_places, fourier_features, grid_places


class LearnedQueries(nn.Module):
    """A learned row a query; a text asks as many as it has places."""

    def __init__(
        self, num_queries: int, width: int, *, grid: tuple[int, ...] | None = None, follows: str | None = None
    ) -> None:
        super().__init__()
        self.follows = follows
        self.table = Table(num_queries, width, grid)

    def forward(self, tokens: Tokens, points: Int[Tensor, " O"] | None) -> Float[Tensor, "1 O E"]:
        """Return the rows, or those of some points only."""
        rows_OE = self.table.weight if points is None else self.table.weight[points]
        if self.follows is not None:
            start, stop = tokens.spans[self.follows]
            rows_OE = rows_OE[: stop - start]
        return rows_OE[None]


class GridQueries(nn.Module):
    """The positions of a grid's cells, computed when they are asked: grids of outputs are large, their cells few.

    The whole grid spans [-1, 1] with both ends; single points are placed as in the released code, whose last cell lies
    one cell short of 1 (section 1.4 of the reference: an inconsistency that trained weights depend on).
    """

    def __init__(self, shape: tuple[int, ...], config: PositionsConfig) -> None:
        super().__init__()
        self.shape, self.num_bands = shape, config.num_bands
        self.max_resolution = [float(top) for top in config.fourier_resolution(shape)]

    def forward(self, tokens: Tokens, points: Int[Tensor, " O"] | None) -> Float[Tensor, "1 O E"]:
        """Return the features of every cell, or of the points: indices into the flattened grid."""
        like = tokens.values
        # At least fp32: in bf16, with 8 bits, neighbouring rows of a large grid would have the same place.
        dtype = torch.promote_types(like.dtype, torch.float32)
        if points is None:
            places = grid_places(self.shape, dtype=dtype).to(like.device)
        else:
            places = cell_places(points, self.shape, dtype=dtype)
        return fourier_features(places, self.num_bands, self.max_resolution).to(like.dtype)[None]


class ProjectedQueries(nn.Module):
    """Learned rows and a linear layer after them."""

    def __init__(self, num_queries: int, config: PositionsConfig, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.rows = LearnedQueries(num_queries, config.learned_width, grid=grid)
        self.project = Projection(config.learned_width, config.project_to)

    def forward(self, tokens: Tokens, points: Int[Tensor, " O"] | None) -> Float[Tensor, "1 O E"]:
        """Return the projected rows."""
        out: Tensor = self.project(self.rows(tokens, points))
        return out


class InputQueries(nn.Module):
    """The input's own tokens, of the first frame where frames are separate."""

    def __init__(self, num_queries: int) -> None:
        super().__init__()
        self.num_queries = num_queries

    def forward(self, tokens: Tokens, points: Int[Tensor, " O"] | None) -> Float[Tensor, "B O E"]:
        """Return the tokens, or those of some points only."""
        rows_BOE = tokens.values[:, : self.num_queries]
        return rows_BOE if points is None else rows_BOE[:, points]


class TextQueries(nn.Module):
    """The tokens of a text, as many as there are places."""

    def __init__(self, text: str, width: int) -> None:
        super().__init__()
        self.text, self.width = text, width

    def forward(self, tokens: Tokens, points: Int[Tensor, " O"] | None) -> Float[Tensor, "B O E"]:
        """Return the tokens, or those of some places only."""
        start, stop = tokens.spans[self.text]
        # Beside other inputs a token has learned channels after its own.
        rows_BOE = tokens.values[:, start:stop, : self.width]
        return rows_BOE if points is None else rows_BOE[:, points]


class PlaceQueries(nn.Module):
    """The Fourier features of places that a batch brings with it."""

    def __init__(self, num_bands: int, max_resolution: list[float]) -> None:
        super().__init__()
        self.num_bands, self.max_resolution = num_bands, max_resolution

    def forward(
        self, tokens: Tokens, points: Int[Tensor, " O"] | None, places_BNA: Float[Tensor, "B N A"]
    ) -> Float[Tensor, "B O E"]:
        """Return the features of every place, or of some of them by their number."""
        like = tokens.values
        places = places_BNA if points is None else places_BNA[:, points]
        # At least fp32, as in GridQueries: in bf16 neighbours would have the same place.
        places = places.to(torch.promote_types(like.dtype, torch.float32))
        return fourier_features(places, self.num_bands, self.max_resolution).to(like.dtype)
