"""Bytes of one member of a sample to an array: pure functions with stated shapes and units.

Errors are ValueError with one sentence of what is wrong; whoever calls knows the file and says where.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from data_shards.modalities.decoding.audio import audio
from data_shards.modalities.decoding.flow import motion, pair
from data_shards.modalities.decoding.image import image, pixels
from data_shards.modalities.decoding.points import points
from data_shards.modalities.decoding.text import text
from data_shards.modalities.decoding.video import shape, video

__all__ = ["audio", "check", "image", "motion", "pair", "pixels", "points", "text", "video"]

_SHAPES: Mapping[str, Callable[[bytes | memoryview], tuple[int, ...]]] = MappingProxyType(
    {
        "audio": lambda data: audio(data)[0].shape,
        "flow": lambda data: pixels(data).shape,
        "image": lambda data: pixels(data).shape,
        "motion": lambda data: motion(data).shape,
        "points": lambda data: points(data).shape,
        "text": lambda data: text(data).shape,
        "video": shape,
    }
)


def check(content: str, data: bytes | memoryview) -> tuple[int, ...]:
    """Return the decoded shape of a member with that content (members.py); ValueError says what is wrong with it."""
    return _SHAPES[content](data)
