"""A grid of values cut into boxes: patches of an image, of a clip, of a spectrogram, of an array.

B samples, M boxes, C their values; G axes of the grid, c channels of a cell
"""

from math import prod

from jaxtyping import Float
from torch import Tensor


def boxes(values: Float[Tensor, "B *G c"], sides: tuple[int, ...]) -> Float[Tensor, "B M C"]:
    """Cut a grid into boxes with these sides; a token's channels are the box in row-major order, then c."""
    batch, *shape, channels = values.shape
    split: list[int] = []
    for length, side in zip(shape, sides, strict=True):
        split += [length // side, side]
    axes = len(sides)
    # The order of DeepMind's space_to_depth, on which released weights depend.
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    return values.reshape(batch, *split, channels).permute(order).reshape(batch, -1, prod(sides) * channels)
