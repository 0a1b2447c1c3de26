"""The cache sizes of devices. No other module holds them."""

from functools import cache

import torch

CACHE_SHARE = 0.5
"""The fraction of a GPU's cache for two arrays of scores; tokens, their gradients and sums need the rest."""
ASSUMED_L2_BYTES = 50 * 2**20
"""An H100's and an H200's, where the device is not here."""


# Asked for every tile of every step; a device does not change.
@cache
def l2_bytes(device: torch.device) -> int:
    """Return the bytes of a GPU's second cache, which all its processors share."""
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return ASSUMED_L2_BYTES


def tile_elements(device: torch.device, dtype: torch.dtype) -> int:
    """Return how many scores a tile of a GPU has.

    What is written to a GPU's memory and read again takes as long as the products before and after it.
    """
    return int(CACHE_SHARE * l2_bytes(device)) // (2 * dtype.itemsize)
