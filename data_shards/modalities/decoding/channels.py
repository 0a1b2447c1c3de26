"""The channels of a picture: which of them mean colours, and what becomes of another number than is asked for.

| the file has   | 1 is asked | 2            | 3                  | 4                   |
|----------------|------------|--------------|--------------------|---------------------|
| grey           | the same   | opaque alpha | repeated           | repeated, opaque    |
| grey, alpha    | grey       | the same     | repeated           | repeated, its alpha |
| colours        | refused    | refused      | the same           | opaque alpha        |
| colours, alpha | refused    | refused      | colours            | the same            |

Colours become grey only where to_grey says so. Channels of another meaning, as a satellite's, must be as many as asked.
"""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.files.quoting import counted

_MEANING = MappingProxyType({1: "grey", 2: "grey and alpha", 3: "red, green and blue", 4: "red, green, blue and alpha"})


@dataclass(frozen=True)
class Picture:
    """All that a file says of its pixels."""

    values: NDArray[np.generic]
    """(H, W, channels): uint8 and uint16 of 8 and 16 bits, other numbers as the file has them."""
    is_usual: bool = True
    """True where 1 to 4 channels mean grey, grey and alpha, red, green and blue, or these with alpha."""


def with_channels(picture: Picture, asked: int, *, to_grey: bool = False) -> NDArray[np.generic]:
    """Return as many channels as are asked for; ValueError where the file's do not become these."""
    values = picture.values
    found = values.shape[2]
    is_usual = picture.is_usual and found <= 4 and asked <= 4
    if found == asked:
        return values
    if not is_usual or (asked <= 2 < found and not to_grey):
        meaning = f" ({_MEANING[found]})" if picture.is_usual and found <= 4 else ""
        grey = ", or to_grey=true" if is_usual and asked <= 2 else ""
        raise ValueError(
            f"image of {counted(found, 'channel')}{meaning}, num_channels is {asked}; set num_channels={found}{grey}"
        )
    # Without one of its own, a picture is opaque everywhere.
    alpha = values[..., found - 1 :] if found in (2, 4) else np.full_like(values[..., :1], _highest(values))
    colours = values[..., : 1 if found <= 2 else 3]
    if asked <= 2 < found:
        colours = _grey(colours)
    elif found <= 2 < asked:
        colours = np.repeat(colours, 3, axis=2)
    return np.concatenate([colours, alpha], axis=2) if asked in (2, 4) else colours


def bytes_of(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return values of 8 or 16 bits as bytes; ValueError for other numbers."""
    if values.dtype == np.uint8:
        return values.view(np.uint8)
    if values.dtype != np.uint16:
        raise ValueError(
            f"image of {values.dtype} values, which are no bytes; set values=raw, or unit with value_range"
        )
    # 257, since 65535 is 257 times 255: white stays white, and bytes that were widened to 16 bits come back.
    return np.asarray(values // 257, np.uint8)


def _highest(values: NDArray[np.generic]) -> int:
    return 2 ** (8 * values.itemsize) - 1 if values.dtype.kind == "u" else 1


def _grey(colours: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the luma of ITU-R BT.601, of bytes with Pillow's rounding."""
    if colours.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(colours)).convert("L"))[..., None]
    # In double precision: 16 bits times these weights are rounded once, at the end.
    luma = colours.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.asarray(np.rint(luma) if colours.dtype.kind in "iu" else luma, colours.dtype)[..., None]
