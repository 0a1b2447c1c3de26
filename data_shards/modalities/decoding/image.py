"""Encoded images to pixels. The EXIF orientation is not applied, as in the papers' pipelines.

bytes  --picture()-->  every channel and every bit that the file has  --channels.py-->  those that are asked for
"""

import io
from types import MappingProxyType

import av
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

from data_shards.modalities.decoding.channels import Picture, bytes_of, with_channels

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before a pixel is decoded: a few kB can claim terabytes."""
MAX_SCANS = 100
"""A JPEG of more scans is refused: each goes over all pixels and may consist of a few bytes. Most have 1 or 10."""
_JPEG, _START_OF_SCAN = b"\xff\xd8\xff", b"\xff\xda"
PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a PNG."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DEEP = MappingProxyType({"gray16be": 1, "ya16be": 2, "rgb48be": 3, "rgba64be": 4})
"""Channels of a pixel of 16 bits a value, by the name of its format in FFmpeg."""
_FORMATS = MappingProxyType(
    {
        PNG: PngImagePlugin.PngImageFile.format,
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

    Of 16 bits the upper ones are kept. Raises ValueError as picture() does, and for numbers that are no bytes.
    """
    return bytes_of(with_channels(picture(data), 3))


def picture(data: bytes | memoryview) -> Picture:
    """Return all channels of an image with all their bits.

    Reads PNG, JPEG, WebP, BMP, PPM and TIFF, whatever the member is called. Raises ValueError where the bytes are none
    of these, are cut short, or claim more than MAX_PIXELS.
    """
    start = bytes(data[:8])
    if start.startswith(_TIFF):
        # Only now: it is an optional library.
        from data_shards.modalities.decoding.formats.tiff import tiff

        return tiff(data, MAX_PIXELS)
    kind = next((kind for magic, kind in _FORMATS.items() if start.startswith(magic)), None)
    if kind is None:
        raise ValueError(f"not an image: it begins with {start!r}; expected PNG, JPEG, WebP, BMP, PPM or TIFF")
    if start.startswith(_JPEG):
        _refuse_scans(data)
        if simplejpeg is not None and (decoded := _jpeg(data)) is not None:
            return Picture(decoded)
    return Picture(_by_pillow(data, kind))


def _by_pillow(data: bytes | memoryview, kind: str) -> NDArray[np.generic]:
    # Any Exception: Pillow's plugins raise whatever their parsing meets.
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as file:
            size = file.size
            if size[0] * size[1] <= MAX_PIXELS:
                values = _values(file)
                # Pillow has checked the file, but of colours in 16 bits it keeps 8.
                return _deep_png(data) if values.dtype == np.uint8 and _is_deep_png(data) else values
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
        # Not of CMYK, whose colours the two mix by rules that differ by up to 2 of 255.
        if colours not in ("YCbCr", "Gray") or height * width > MAX_PIXELS:
            return None
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY" if colours == "Gray" else "RGB")
    except ValueError:
        return None
    return decoded


def _values(file: Image.Image) -> NDArray[np.generic]:
    """Return the channels of a file: grey, grey and alpha, red green blue, or these and alpha."""
    if file.mode.startswith("I"):
        # Of a PNG of 16 bits Pillow calls the mode I;16, of a PPM I.
        return np.asarray(file, np.uint16)[..., None]
    has_alpha = "transparency" in file.info or file.mode in ("LA", "PA", "RGBA")
    is_grey = file.mode in ("1", "L", "LA")
    # With its transparency first: Pillow warns of a palette with some that becomes RGB at once.
    mode = ("LA" if has_alpha else "L") if is_grey else ("RGBA" if has_alpha else "RGB")
    values = np.asarray(file if file.mode == mode else file.convert(mode))
    return values if values.ndim == 3 else values[..., None]


def _is_deep_png(data: bytes | memoryview) -> bool:
    return bytes(data[:8]) == PNG and data[24] == 16


def _deep_png(data: bytes | memoryview) -> NDArray[np.uint16]:
    codec = av.CodecContext.create("png", "r")
    # With None at the end: a decoder of several threads may keep its frame until nothing follows.
    frame, *_ = [*codec.decode(av.Packet(bytes(data))), *codec.decode(None)]
    channels, plane = _DEEP[frame.format.name], frame.planes[0]
    lines = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
    # ffmpeg pads the lines of a plane: those of 7 pixels take 192 bytes.
    rows = lines[: frame.height, : 2 * channels * frame.width]
    big_endian = np.ascontiguousarray(rows).view(">u2")
    return big_endian.astype(np.uint16).reshape(frame.height, frame.width, channels)
