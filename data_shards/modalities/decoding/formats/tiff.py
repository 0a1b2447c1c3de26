"""TIFF files: any number of channels, in one image or one a page, of bytes, 16 bits, or floating point."""

import io
import logging
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_shards.files.quoting import cut
from data_shards.modalities.decoding.channels import Picture

try:
    import tifffile
except ImportError:
    tifffile = None  # type: ignore[assignment]

REMEDY: Final = "TIFF needs a library: pip install tifffile imagecodecs"
MAX_BYTES: Final = 1 << 30
"""The most bytes of the pixels, all channels together."""
MAX_PAGES: Final = 4096
WHITE_IS_ZERO, BLACK_IS_ZERO, COLOURS = 0, 1, 2
ALPHA: Final = (1, 2)
PACKED: Final = (1, 5, 8, 32773, 32946, 34925, 50000)
"""The ways of packing that are read: none, LZW, deflate, PackBits, LZMA and zstd; tifffile knows many more."""


def tiff(data: bytes | memoryview, max_pixels: int) -> Picture:
    """Return the channels of the only image of a TIFF file; those of pages of one size are joined in their order.

    Smaller copies and masks are skipped. ValueError says what is wrong with the file, or which library is missing.
    """
    if tifffile is None:
        raise ValueError(REMEDY)
    # It writes of every oddity of a file to the terminal.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    # Any: a decoder that meets bytes which nobody thought of may raise whatever it likes.
    try:
        # Its pages alone: what tifffile calls a series may lie in other files, which an OME-TIFF names.
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = _pages(file, max_pixels)
            values = np.concatenate([_values(page) for page in pages], axis=2)
            return Picture(values, is_usual=len(pages) == 1 and _is_usual(pages[0]))
    except _RefusedError as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        raise ValueError(f"corrupt TIFF file ({cut(str(error))})") from error


class _RefusedError(Exception):
    """A file that is sound, and is not read."""


def _pages(file: Any, max_pixels: int) -> list[Any]:  # noqa: ANN401 - its pages are of several classes
    """Return the pages that make the picture, none of them decoded."""
    pages: list[Any] = []
    num_bytes = 0
    for number, page in enumerate(file.pages):
        if number == MAX_PAGES:
            raise _RefusedError(f"TIFF file of more than {MAX_PAGES} pages")
        page = page.aspage()
        if page.is_reduced or page.is_mask:
            continue
        _refuse_other(page, max_pixels)
        if pages and (page.shape, page.dtype) != (pages[0].shape, pages[0].dtype):
            raise _RefusedError(
                f"TIFF file of pages of shapes {pages[0].shape} and {page.shape}; write one image a file"
            )
        num_bytes += page.nbytes
        if num_bytes > MAX_BYTES:
            raise _RefusedError(f"TIFF file claims {num_bytes} bytes of pixels; at most {MAX_BYTES} are decoded")
        pages.append(page)
    if not pages:
        raise _RefusedError("TIFF file without an image")
    return pages


def _refuse_other(page: Any, max_pixels: int) -> None:  # noqa: ANN401
    if page.imagelength * page.imagewidth > max_pixels:
        raise _RefusedError(
            f"image claims {page.imagewidth} x {page.imagelength} pixels; at most {max_pixels} are decoded"
        )
    if page.imagedepth != 1:
        raise _RefusedError("TIFF file of a volume; write it as an array")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise _RefusedError(f"TIFF file of values of type {page.dtype}; expected real numbers")
    if page.compression not in PACKED:
        raise _RefusedError(f"TIFF file packed by {_name(page.compression)}; write it by LZW or deflate")
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, COLOURS):
        raise _RefusedError(
            f"TIFF file whose pixels are {_name(page.photometric)}; convert it to grey or red, green, blue"
        )


def _name(found: Any) -> str:  # noqa: ANN401 - a member of an enumeration, or a number that is none
    return str(getattr(found, "name", found))


def _values(page: Any) -> NDArray[np.generic]:  # noqa: ANN401
    """Return (H, W, channels) of a page, whose file has them pixel by pixel or plane by plane."""
    # tifffile's `shaped` is (planes, depth, rows, columns, values of a pixel), of which planes or values are 1.
    planes = page.asarray(squeeze=False, maxworkers=1).reshape(page.shaped)
    values: NDArray[np.generic] = np.moveaxis(planes[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, -1)
    # A bitmap becomes black and white of 8 bits, as any other reader shows it.
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    if page.photometric == WHITE_IS_ZERO:
        if values.dtype.kind != "u":
            raise _RefusedError("TIFF file in which white is 0, of other numbers than bytes or 16 bits; convert it")
        values = np.bitwise_not(values)
    # In the order of this machine: a file of another one names its type otherwise, and uint16 would not be found.
    return values.astype(values.dtype.newbyteorder("="))


def _is_usual(page: Any) -> bool:  # noqa: ANN401
    """Return whether the channels are grey or colours, and perhaps alpha behind them."""
    extra = tuple(page.extrasamples)
    others = page.samplesperpixel - (3 if page.photometric == COLOURS else 1)
    return others == 0 or (others == 1 and len(extra) == 1 and extra[0] in ALPHA)
