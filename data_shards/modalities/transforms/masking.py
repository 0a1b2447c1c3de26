"""Masking: words of a text, as bytes or as tokens, are hidden for the network to predict."""

import re
import zlib

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.transform_config import MaskingConfig
from data_shards.modalities.transforms.text import MASK, NUM_SPECIAL, PAD

_WORD = re.compile(rb"\S+")


def mask_words(
    ids: NDArray[np.int16], num_valid: int, config: MaskingConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return (ids with the bytes of some words replaced by MASK, the true ids at those places and PAD elsewhere).

    A word is a run of bytes that are not white space (Perceiver IO, appendix F.3). Without a generator the words are
    drawn from the text itself, so that an evaluation always asks for the same ones.
    """
    text = (ids[:num_valid] - NUM_SPECIAL).astype(np.uint8).tobytes()
    # crc32 and not hash(), whose result is another one in each process.
    rng = rng or np.random.Generator(np.random.Philox(zlib.crc32(text)))
    words = [match.span() for match in _WORD.finditer(text)]
    masked, targets = ids.copy(), np.full_like(ids, PAD)
    if not words:
        return masked, targets
    hidden = rng.random(len(words)) < config.probability
    # A text with nothing hidden would teach nothing.
    hidden[rng.integers(len(words))] |= not hidden.any()
    for (start, end), is_hidden in zip(words, hidden, strict=True):
        if is_hidden:
            masked[start:end] = MASK
            targets[start:end] = ids[start:end]
    return masked, targets


def mask_tokens(
    ids: NDArray[np.signedinteger],
    words: NDArray[np.int32],
    num_valid: int,
    mask: int,
    config: MaskingConfig,
    rng: np.random.Generator | None,
) -> tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]:
    """Return (ids with the tokens of some words replaced by `mask`, the true ids at those places and 0 elsewhere).

    `words` has the number of the word of each token, -1 of white space and padding, which are never hidden. -1 stands
    for the true id 0, which a tokenizer may have. A word is hidden with all of its tokens (Perceiver IO, appendix F.3).
    """
    # As of words: without a generator the text alone decides, in every process.
    rng = rng or np.random.Generator(np.random.Philox(zlib.crc32(ids[:num_valid].tobytes())))
    masked, targets = ids.copy(), np.zeros_like(ids)
    is_word = words >= 0
    numbers, word_of_token = np.unique(words[is_word], return_inverse=True)
    if not len(numbers):
        return masked, targets
    hidden = rng.random(len(numbers)) < config.probability
    # A text with nothing hidden would teach nothing.
    hidden[rng.integers(len(numbers))] |= not hidden.any()
    places = np.flatnonzero(is_word)[hidden[word_of_token]]
    masked[places] = mask
    targets[places] = np.where(ids[places] == 0, -1, ids[places])
    return masked, targets
