"""Position encodings: Fourier features of positions on a grid or in space.

    row       place 0     | sines 0     | cosines 0
    column    0     place | 0     sines | 0       cosines
    cell      the sum of its row's and its column's: one table an axis in place of one row a cell

M tokens, A axes of a grid, K frequencies an axis
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import pi, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.config.grids import PositionsConfig
from model.parameters import Projection, Table


def grid_places(shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "M A"]:
    """Return the place of every cell of a grid, row by row: -1 to 1 on each axis, both included."""
    axes = [torch.linspace(-1, 1, count, dtype=dtype) for count in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(shape))


def cell_places(points: Int[Tensor, " M"], shape: Sequence[int], *, dtype: torch.dtype) -> Float[Tensor, "M A"]:
    """Return the places of some cells of a grid as the released code has them: -1 to 1 without the upper end."""
    indices_MA = torch.stack(torch.unravel_index(points, tuple(shape)), dim=-1)
    return -1 + 2 * indices_MA.to(dtype) / torch.tensor(shape, dtype=dtype, device=points.device)


def frequencies(num_bands: int, max_resolution: Sequence[float], *, dtype: torch.dtype) -> Float[Tensor, "A K"]:
    """Return the frequencies of each axis: evenly spaced from 1 to half its maximum resolution, both included."""
    # Evenly and not logarithmically spaced, as in the second version of the paper and in its code; the first version
    # had the other.
    return torch.stack([torch.linspace(1, top / 2, num_bands, dtype=dtype) for top in max_resolution])


def fourier_features(
    places: Float[Tensor, "*M A"], num_bands: int, max_resolution: Sequence[float]
) -> Float[Tensor, "*M P"]:
    """Return [places, sines, cosines], axis by axis within each: P = A (2K + 1) channels (section 3.2 of the paper).

    The order of the operations is that of the released code: at high frequencies float32 would show another one.
    """
    # Made on the CPU and moved: linspace may round otherwise on a GPU, and the places are multiplied by what it gives.
    bands_AK = frequencies(num_bands, max_resolution, dtype=places.dtype).to(places.device)
    angles = pi * (places[..., None] * bands_AK).flatten(start_dim=-2)
    return torch.cat([places, angles.sin(), angles.cos()], dim=-1)


def axis_features(
    shape: Sequence[int], num_bands: int, max_resolution: Sequence[float], *, dtype: torch.dtype
) -> tuple[Float[Tensor, "_ P"], ...]:
    """Return what a place on each axis adds to the Fourier features: the features of a cell are the sum over axes."""
    tables = []
    for axis, (count, top) in enumerate(zip(shape, max_resolution, strict=True)):
        own = fourier_features(grid_places([count], dtype=dtype), num_bands, [top])
        place, sines, cosines = own.tensor_split([1, 1 + num_bands], dim=1)
        # Channels of the other axes are zeros, so that adding the tables puts each axis into its own channels.
        every = [part if other == axis else 0 * part for part in (place, sines, cosines) for other in range(len(shape))]
        tables.append(torch.cat(every, dim=1))
    return tuple(tables)


class Positions(nn.Module):
    """The positions of a grid's tokens, concatenated after their channels.

    Fourier features are a constant of the grid: what each axis says is computed once and is in no checkpoint.
    """

    def __init__(self, config: PositionsConfig, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.kind, self.num_axes = config.kind, len(grid)
        if config.kind == "fourier":
            max_resolution = [float(top) for top in config.fourier_resolution(grid)]
            tables = axis_features(grid, config.num_bands, max_resolution, dtype=torch.get_default_dtype())
            for axis, table in enumerate(tables):
                # Not persistent: weights trained at one size can then be loaded at another.
                self.register_buffer(f"axis_{axis}", table, persistent=False)
        elif config.kind == "learned":
            self.learned = Table(prod(grid), config.learned_width, grid)
            self.project = Projection(config.learned_width, config.project_to) if config.project_to else nn.Identity()

    @property
    def axis_tables(self) -> tuple[Float[Tensor, "_ P"], ...]:
        """The part of the position encoding of each axis."""
        return tuple(self.get_buffer(f"axis_{axis}") for axis in range(self.num_axes))

    def forward(self, content_BMC: Float[Tensor, "B M C"]) -> Float[Tensor, "B M D"]:
        """Return the tokens with their positions."""
        if self.kind == "none":
            return content_BMC
        positions_MP = whole_table(self.axis_tables) if self.kind == "fourier" else self.project(self.learned.weight)
        # Tables stay float32 where weights are half precision, and would make the tokens float32 too.
        positions_BMP = positions_MP.to(content_BMC.dtype).expand(content_BMC.shape[0], -1, -1)
        return torch.cat([content_BMC, positions_BMP], dim=-1)


class GridAdapter(nn.Module, ABC):
    """An adapter whose tokens are some content and its position."""

    positions: Positions

    @abstractmethod
    def content(self, value: Tensor, dtype: torch.dtype) -> Float[Tensor, "B M c"]:
        """Return the tokens without their positions."""

    def forward(self, value: Tensor, dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens."""
        out: Tensor = self.positions(self.content(value, dtype))
        return out


def whole_table(axis_tables: tuple[Float[Tensor, "_ P"], ...]) -> Float[Tensor, "M P"]:
    """Return the position of every cell of a grid, row by row: the sum of what its axes say."""
    whole = axis_tables[0]
    for table in axis_tables[1:]:
        whole = (whole[:, None] + table).flatten(0, 1)
    return whole
