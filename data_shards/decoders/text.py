"""Text to bytes: the Perceiver reads text as it is stored."""

import numpy as np
from numpy.typing import NDArray


def text(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Return the bytes of the text as uint8, shape (L,); ValueError where there are none."""
    if not len(data):
        raise ValueError("text of length 0")
    return np.frombuffer(data, np.uint8)
