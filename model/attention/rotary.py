"""Rotary positions: queries and keys are turned by their places, so that scores know distances (arXiv 2104.09864).

    channels of a head     x0 x1 ... xP | y0 y1 ... yP | rest          each pair (x, y) is turned by place * frequency
    two axes               the first half of the pairs by the place on axis 0, the second half on axis 1

H heads, S places, c channels of a head, P pairs of them, A axes of a grid
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

BASE = 10_000.0
"""The slowest pair turns by about one part in this many of what the fastest does: RoFormer's."""


def angles(grid: tuple[int, ...], num_pairs: int, device: torch.device) -> Float[Tensor, "S P"]:
    """Return the angle of each pair at each cell of a grid, row by row; the axes share the pairs, what is left is 0."""
    pairs = num_pairs // len(grid)
    # In float64: at place 50 000 float32 has 3 digits of an angle left.
    frequencies = BASE ** (-torch.arange(pairs, dtype=torch.float64, device=device) / pairs)
    places = torch.meshgrid(*(torch.arange(length, device=device) for length in grid), indexing="ij")
    turned = [axis.reshape(-1, 1) * frequencies for axis in places]
    left = torch.zeros(turned[0].shape[0], num_pairs - pairs * len(grid), dtype=torch.float64, device=device)
    return torch.cat([*turned, left], dim=1)


def token_angles(
    inputs: Iterable[tuple[tuple[int, ...], int]], num_pairs: int, device: torch.device
) -> Float[Tensor, "S P"]:
    """Return the angles of the tokens of several inputs, each with its grid and the number of tokens there are."""
    return torch.cat([angles(grid, num_pairs, device)[:count] for grid, count in inputs])


def rotated(
    heads_BHSc: Float[Tensor, "B H S c"], angles: Float[Tensor, "S P"] | Float[Tensor, "b S P"]
) -> Float[Tensor, "B H S c"]:
    """Return queries or keys turned by the angles of their places, which all samples share or each has of its own."""
    num_pairs = angles.shape[-1]
    dtype = torch.promote_types(heads_BHSc.dtype, torch.float32)
    of_heads = angles if angles.dim() == 2 else angles[:, None]
    cosines, sines = of_heads.cos().to(dtype), of_heads.sin().to(dtype)
    # One split and one cat: in the backward pass each slice of its own would be an array as large as all heads.
    x, y, rest = torch.split(heads_BHSc, [num_pairs, num_pairs, heads_BHSc.shape[-1] - 2 * num_pairs], dim=-1)
    turned = (x * cosines - y * sines, y * cosines + x * sines)
    return torch.cat([*(part.to(heads_BHSc.dtype) for part in turned), rest], dim=-1)
