"""What inputs of pixels have in common: the range that bytes become, and the convolution that may come first."""

from typing import Literal

from model.config.cost import Cost, Kept
from model.config.grids import Problems

PixelRange = Literal["unit", "centred", "imagenet"]
STEM_WIDTH = 64
"""Channels of the convolution that may stand before tokens."""


def range_problems(pixel_range: PixelRange, num_channels: int) -> Problems:
    """Yield what is wrong with a range for pixels of so many channels."""
    if pixel_range == "imagenet" and num_channels != 3:
        yield "pixel_range", f"imagenet is defined for 3 channels, got {num_channels}; use unit"


def stem_cost(height: int, width: int, num_channels: int, runs: int = 1) -> Cost:
    """Return the cost of a 7x7 convolution of stride 2 and a batch norm that run so often for a sample."""
    weights = 49 * num_channels * STEM_WIDTH
    return Cost(weights + 2 * STEM_WIDTH, runs * 2 * -(-height // 2) * -(-width // 2) * weights)


def stem_kept(height: int, width: int, num_channels: int, runs: int = 1) -> Kept:
    """Return what the convolution keeps: padded pixels, what the ReLU and the pool's padding give, and each maximum."""
    pixels = height * width
    half, quarter = STEM_WIDTH * pixels // 4, STEM_WIDTH * pixels // 16
    return Kept(runs * (num_channels * pixels + 2 * half), runs * 8 * quarter, runs * 2 * half)
