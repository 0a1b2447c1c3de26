"""Arrays that a network answered, as files that other programs open: pictures, animations, recordings, motion."""

import io
import wave

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.modalities.decoding.flow import MAGIC, UNKNOWN

_FRAME_MILLISECONDS = 100
_FULL_SCALE = 32_767


def png(values: NDArray[np.floating]) -> bytes:
    """Return a picture (H, W, 1, 3 or 4) of values in [0, 1]; what lies outside is cut."""
    return _saved(_image(values), "PNG")


def animation(values: NDArray[np.floating]) -> bytes:
    """Return frames (T, H, W, 3) of values in [0, 1] as an animated WebP without loss."""
    first, *others = map(_image, values)
    return _saved(first, "WEBP", save_all=True, append_images=others, lossless=True, duration=_FRAME_MILLISECONDS)


def wav(values: NDArray[np.floating], sample_rate: int) -> bytes:
    """Return a recording (samples,) or (samples, channels) of values in [-1, 1] with 16 bits."""
    samples = values.reshape(len(values), -1)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((_known(samples).clip(-1, 1) * _FULL_SCALE).round().astype("<i2").tobytes())
    return content.getvalue()


def flo(motion: NDArray[np.floating]) -> bytes:
    """Return motion (H, W, 2) in pixels as Middlebury's .flo."""
    height, width = motion.shape[:2]
    # Far beyond what the format calls unknown, so that no reader takes it for motion.
    known = np.nan_to_num(motion.astype("<f4"), nan=10 * UNKNOWN)
    return bytes(MAGIC + np.array([width, height], "<i4").tobytes() + known.tobytes())


def motion_picture(motion: NDArray[np.floating]) -> bytes:
    """Return motion (H, W, 2) as a PNG: the hue is its direction, the saturation its length by the longest."""
    right, down = np.moveaxis(_known(motion).astype(np.float64), -1, 0)
    # By the longest of this picture: directions stay visible in slow motion.
    length = np.hypot(right, down)
    hue = np.arctan2(down, right) / (2 * np.pi) % 1
    # A pair that stands still has no longest motion.
    hsv = np.stack([hue, length / (length.max() or 1), np.ones_like(hue)], axis=-1)
    return _saved(Image.fromarray((hsv * 255).round().astype(np.uint8), "HSV").convert("RGB"), "PNG")


def _image(values: NDArray[np.floating]) -> Image.Image:
    # Clipped first: beyond the ends a cast to bytes begins at 0 again.
    pixels = (_known(values).clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _known(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the values with zeros for what is no number."""
    return np.asarray(np.nan_to_num(values, nan=0.0))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format=kind, **options)
    return content.getvalue()
