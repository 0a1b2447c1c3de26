"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) on the images and label targets of a batch.

Slots 2i and 2i + 1 of the global batch are a pair, and each is mixed with the other. So any even number of slots, and
with it any world size that gives each rank an even share, makes the same images.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.transform_config import MixupConfig


def mix_pairs(
    images: NDArray[Any],
    targets: NDArray[np.float32],
    config: MixupConfig,
    generators: Iterator[np.random.Generator],
) -> None:
    """Mix images (B, H, W, channels) and targets (B, classes) in place; `generators` gives one for each pair."""
    assert len(images) % 2 == 0, "pairs are within a rank's part of the batch"
    for first, rng in zip(range(0, len(images), 2), generators, strict=True):
        pair = slice(first, first + 2)
        if rng.random() < config.cutmix_probability:
            share = _paste(images[pair], config.cutmix_alpha, rng)
        else:
            share = _blend(images[pair], config.mixup_alpha, rng)
        targets[pair] = share * targets[pair] + (1 - share) * targets[pair][::-1]


def _blend(pair: NDArray[Any], alpha: float, rng: np.random.Generator) -> np.float32:
    """Blend two images with each other in place; return how much each keeps of itself."""
    share = np.float32(rng.beta(alpha, alpha))
    blended = share * pair + (1 - share) * pair[::-1]
    # Rounded: a cast cuts, and every blended image would be half a step too dark.
    pair[:] = np.rint(blended) if pair.dtype == np.uint8 else blended
    return share


def _paste(pair: NDArray[Any], alpha: float, rng: np.random.Generator) -> np.float32:
    """Exchange a rectangle of two images in place; return how much each keeps of its area.

    The rectangle has the picture's aspect and its centre anywhere; what lies beyond the border is cut off.
    """
    height, width = pair.shape[1:3]
    # What Beta draws is the share that stays, lambda in the paper.
    side = np.sqrt(1 - rng.beta(alpha, alpha))
    row, column = rng.integers(height), rng.integers(width)
    down, across = int(side * height) // 2, int(side * width) // 2
    rows = slice(max(0, row - down), min(height, row + down))
    columns = slice(max(0, column - across), min(width, column + across))
    # A copy: both sides of the assignment are the same memory.
    pair[:, rows, columns] = pair[::-1, rows, columns].copy()
    return np.float32(1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width))
