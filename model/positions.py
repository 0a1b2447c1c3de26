"""Where a token is: Fourier features of places on a grid or in space.

M tokens, A axes of a grid, K frequencies an axis
"""

from collections.abc import Sequence
from math import pi, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.config_grids import PositionsConfig
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
    return torch.stack([torch.linspace(1, top / 2, num_bands, dtype=dtype) for top in max_resolution])


def fourier_features(
    places: Float[Tensor, "*M A"], num_bands: int, max_resolution: Sequence[float]
) -> Float[Tensor, "*M P"]:
    """Return [places, sines, cosines], axis by axis within each: P = A (2K + 1) channels (section 3.2 of the paper).

    The order of the operations is that of the released code: at high frequencies float32 would show another one.
    """
    bands_AK = frequencies(num_bands, max_resolution, dtype=places.dtype).to(places.device)
    angles = pi * (places[..., None] * bands_AK).flatten(start_dim=-2)
    return torch.cat([places, angles.sin(), angles.cos()], dim=-1)


class Positions(nn.Module):
    """The positions of a grid's tokens, concatenated after their channels.

    Fourier features are a constant of the grid: computed once, in no checkpoint.
    """

    table: Tensor

    def __init__(self, config: PositionsConfig, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.kind = config.kind
        if config.kind == "fourier":
            places = grid_places(grid, dtype=torch.get_default_dtype())
            max_resolution = [float(top) for top in config.max_resolution or grid]
            features = fourier_features(places, config.num_bands, max_resolution)
            self.register_buffer("table", features, persistent=False)
        elif config.kind == "learned":
            self.learned = Table(prod(grid), config.learned_width)
            self.project = Projection(config.learned_width, config.project_to) if config.project_to else nn.Identity()

    def forward(self, content_BMC: Float[Tensor, "B M C"]) -> Float[Tensor, "B M D"]:
        """Return the tokens with their positions."""
        if self.kind == "none":
            return content_BMC
        positions_MP = self.table if self.kind == "fourier" else self.project(self.learned.weight)
        return torch.cat([content_BMC, positions_MP.expand(content_BMC.shape[0], -1, -1)], dim=-1)
