"""Optical flow for frames larger than the network's: overlapping tiles, blended by the distance to their edge.

B samples, H rows, W columns of the frames; h, w those of a tile
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def tile_starts(length: int, tile: int, min_overlap: int) -> list[int]:
    """Return the first row (or column) of every tile: as few as overlap enough, evenly spread from edge to edge."""
    if length < tile:
        raise ValueError(f"the frames have {length} rows or columns, a tile has {tile}; use a network of that size")
    if length == tile:
        return [0]
    if not 0 <= min_overlap < tile:
        raise ValueError(f"min_overlap: expected 0 to {tile - 1}, got {min_overlap}")
    # As few as possible: each tile is a whole forward pass.
    steps = -(-(length - tile) // (tile - min_overlap))
    return [round(step * (length - tile) / steps) for step in range(steps + 1)]


def edge_distances(height: int, width: int) -> Float[Tensor, "h w"]:
    """Return the distance of every pixel of a tile to the nearest edge, 1 at the edge itself."""
    # From 1 and not from 0: a corner of the frames lies in one tile alone, and its weight is divided by.
    rows, columns = torch.arange(1, height + 1), torch.arange(1, width + 1)
    return torch.minimum(torch.minimum(rows, rows.flip(0))[:, None], torch.minimum(columns, columns.flip(0))).float()


def tiled_flow(
    predict: Callable[[Shaped[Tensor, "B 2 h w c"]], Float[Tensor, "B h w 2"]],
    frames: Shaped[Tensor, "B 2 H W c"],
    tile: tuple[int, int],
    *,
    # 20 pixels as in the released code: six tiles for a frame of Sintel.
    min_overlap: int = 20,
) -> Float[Tensor, "B H W 2"]:
    """Return the flow of large frames: the mean of the tiles' answers, weighted by the distance to their edge."""
    height, width = frames.shape[2:4]
    weights_hw = edge_distances(*tile).to(frames.device)[..., None]
    windows = list(_windows((height, width), tile, min_overlap))
    # Of float32 at the least, which the weights have.
    answers = [weights_hw * predict(frames[:, :, rows, columns]) for rows, columns in windows]
    total = answers[0].new_zeros(len(frames), height, width, 2)
    weight = torch.zeros(height, width, 1, device=frames.device)
    for (rows, columns), answer in zip(windows, answers, strict=True):
        total[:, rows, columns] += answer
        weight[rows, columns] += weights_hw
    return total / weight


def _windows(size: tuple[int, int], tile: tuple[int, int], min_overlap: int) -> Iterator[tuple[slice, slice]]:
    for row in tile_starts(size[0], tile[0], min_overlap):
        for column in tile_starts(size[1], tile[1], min_overlap):
            yield slice(row, row + tile[0]), slice(column, column + tile[1])
