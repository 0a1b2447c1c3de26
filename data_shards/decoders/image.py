"""Encoded images to pixels. The orientation tag of EXIF is not applied, as in the papers' pipelines."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before a pixel is decoded: a few kB can claim terabytes."""


def image(data: bytes | memoryview) -> NDArray[np.float32]:
    """Return the image as float32 in [0, 1], shape (H, W, 3), red first."""
    return pixels(data).astype(np.float32) / np.float32(255)


def pixels(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Return the image as uint8, shape (H, W, 3), red first; transparency is dropped, grey is repeated.

    Raises ValueError where the bytes are not an image, are cut short, or claim more than MAX_PIXELS.
    """
    if simplejpeg is not None and bytes(data[:3]) == b"\xff\xd8\xff" and (decoded := _jpeg(data)) is not None:
        return decoded
    try:
        with Image.open(io.BytesIO(data)) as file:
            _refuse_bomb(file.size)
            return np.asarray(_rgb(file))
    except UnidentifiedImageError as error:
        raise ValueError("not an image in a format that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"image claims too many pixels ({error})") from error
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"corrupt image ({error})") from error


def _jpeg(data: bytes | memoryview) -> NDArray[np.uint8] | None:
    """Return a common JPEG's pixels, equal to Pillow's to the bit in half the time; None for Pillow to look at it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or height * width > MAX_PIXELS:
            return None
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return decoded


def _refuse_bomb(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(f"image claims {width} x {height} pixels; at most {MAX_PIXELS} are decoded")


def _rgb(file: Image.Image) -> Image.Image:
    if file.mode.startswith("I;16"):
        # Pillow clips 16-bit grey to 255 where it should scale.
        scaled = np.asarray(file, np.uint16) // 257
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if "transparency" in file.info or file.mode in ("LA", "PA"):
        return file.convert("RGBA").convert("RGB")
    return file if file.mode == "RGB" else file.convert("RGB")
