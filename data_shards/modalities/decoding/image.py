"""Encoded images to pixels. The EXIF orientation is not applied, as in the papers' pipelines."""

import io
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

# Each by name, since Image.open finds only the plugins that were imported.
from PIL import (
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before a pixel is decoded: a few kB can claim terabytes."""
MAX_SCANS = 100
"""A JPEG of more scans is refused: each goes over all pixels and may consist of a few bytes. Most have 1 or 10."""
_JPEG, _START_OF_SCAN = b"\xff\xd8\xff", b"\xff\xda"
_FORMATS = MappingProxyType(
    {
        b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile.format,
        _JPEG: JpegImagePlugin.JpegImageFile.format,
        b"RIFF": WebPImagePlugin.WebPImageFile.format,
        b"BM": BmpImagePlugin.BmpImageFile.format,
        **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImagePlugin.PpmImageFile.format),
    }
)
"""Pillow's name of each format that is read, by its first bytes. Pillow has more, and a PNG that begins as PostScript
does would be handed to Ghostscript: the bytes never choose among those."""


def image(data: bytes | memoryview) -> NDArray[np.float32]:
    """Return the image as float32 in [0, 1], shape (H, W, 3), red first."""
    return pixels(data).astype(np.float32) / np.float32(255)


def pixels(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Return the image as uint8, shape (H, W, 3), red first; transparency is dropped, grey is repeated.

    Reads PNG, JPEG, WebP, BMP and PPM, whatever the member is called. Raises ValueError where the bytes are none of
    these, are cut short, or claim more than MAX_PIXELS.
    """
    start = bytes(data[:8])
    kind = next((kind for magic, kind in _FORMATS.items() if start.startswith(magic)), None)
    if kind is None:
        raise ValueError(f"not an image: it begins with {start!r}; expected PNG, JPEG, WebP, BMP or PPM")
    if start.startswith(_JPEG):
        _refuse_scans(data)
        if simplejpeg is not None and (decoded := _jpeg(data)) is not None:
            return decoded
    return _by_pillow(data, kind)


def _by_pillow(data: bytes | memoryview, kind: str) -> NDArray[np.uint8]:
    # Any Exception: Pillow's plugins raise whatever their parsing meets.
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as file:
            size = file.size
            if size[0] * size[1] <= MAX_PIXELS:
                return np.asarray(_rgb(file))
    except UnidentifiedImageError as error:
        raise ValueError(f"corrupt image (its header is not that of {kind})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"image claims too many pixels ({error})") from error
    except Exception as error:
        raise ValueError(f"corrupt image ({error})") from error
    raise ValueError(f"image claims {size[0]} x {size[1]} pixels; at most {MAX_PIXELS} are decoded")


def _refuse_scans(data: bytes | memoryview) -> None:
    # Never part of the coded pixels: there a 0 follows each 255.
    num_scans = bytes(data).count(_START_OF_SCAN)
    if num_scans > MAX_SCANS:
        raise ValueError(f"JPEG of {num_scans} scans; at most {MAX_SCANS} are decoded")


def _jpeg(data: bytes | memoryview) -> NDArray[np.uint8] | None:
    """Return the pixels of a common JPEG, bit-equal to Pillow's in half the time; None if Pillow must decode it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or height * width > MAX_PIXELS:
            return None
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return decoded


def _rgb(file: Image.Image) -> Image.Image:
    if file.mode.startswith("I"):
        # Pillow clips 16-bit grey to 255 where it should scale; of a PPM it calls the mode I.
        scaled = np.asarray(file, np.uint16) // 257
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if "transparency" in file.info or file.mode in ("LA", "PA"):
        # By way of RGBA: Pillow warns of a palette with transparency that becomes RGB at once.
        return file.convert("RGBA").convert("RGB")
    return file if file.mode == "RGB" else file.convert("RGB")
