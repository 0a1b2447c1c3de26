"""Text to int16 ids (num_bytes,): a byte plus 6, after the special ids of the Perceiver's byte vocabulary."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.text import text
from data_shards.modalities.text import TextConfig

PAD, BOS, EOS, MASK, CLS, SEP = range(6)
NUM_SPECIAL = 6
VOCABULARY = NUM_SPECIAL + 256


def fit(data: bytes | memoryview, config: TextConfig, rng: np.random.Generator | None) -> tuple[NDArray[np.int16], int]:
    """Return the ids of the text padded with PAD; of a longer text the beginning, in training a random part."""
    characters = text(data)
    spare = len(characters) - config.num_bytes
    start = int(rng.integers(spare, endpoint=True)) if rng is not None and spare > 0 else 0
    part = characters[start : start + config.num_bytes]
    # 262 ids are more than a byte can tell apart.
    ids = np.full(config.num_bytes, PAD, np.int16)
    ids[: len(part)] = part.astype(np.int16) + NUM_SPECIAL
    return ids, len(part)
