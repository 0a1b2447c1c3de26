"""Text to bytes: the Perceiver reads text as it is stored."""

import codecs

import numpy as np
from numpy.typing import NDArray


def text(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Return the bytes of the text as uint8, shape (L,); ValueError where there are none, or they are not UTF-8."""
    if not len(data):
        raise ValueError("text of length 0")
    try:
        # Not bytes.decode, which a view into an extent lacks: it would have to be copied first.
        codecs.utf_8_decode(data, "strict", True)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not text in UTF-8 at byte {error.start} (0x{error.object[error.start]:02x}); unpack it if it is "
            "compressed, or write it as UTF-8"
        ) from error
    return np.frombuffer(data, np.uint8)
