"""Where a token is: Fourier features of places on a grid or in space.

M tokens, A axes of a grid, K frequencies an axis
"""

from collections.abc import Sequence
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor


def grid_places(shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "M A"]:
    """Return the place of every cell of a grid, row by row: -1 to 1 on each axis, both included."""
    axes = [torch.linspace(-1, 1, count, dtype=dtype) for count in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(shape))


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
