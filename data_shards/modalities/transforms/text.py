"""Text to ids of a fixed length: bytes as int16, a byte plus 6, after the special ids of the Perceiver's byte
vocabulary; tokens as int32."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.text import text
from data_shards.modalities.kinds.text import BYTE_VOCABULARY, TextConfig

# Those of the released bytes_tokenizer.py; the paper speaks of four.
PAD, BOS, EOS, MASK, CLS, SEP = range(6)
NUM_SPECIAL = BYTE_VOCABULARY - 256
BYTE_MARK = b"[MASK]"
"""The name of MASK in a text of bytes, as of Hugging Face's tokenizer for Perceivers."""


def fit(
    data: bytes | memoryview, config: TextConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.signedinteger], int]:
    """Return the ids of the text, padded; of a longer text the beginning, in training a random part.

    The length is 0 of a text in which a tokenizer finds no token.
    """
    ids, length, *_ = fit_words(data, config, rng)
    return ids, length


def fit_words(
    data: bytes | memoryview, config: TextConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.signedinteger], int, NDArray[np.int32], bool]:
    """Return what `fit` does, for each token the number of its word, and whether the text is longer.

    The number of a word is -1 where there is none; of bytes all are.
    """
    found: NDArray[np.integer] = text(data)
    by_mark = config.masking is not None and config.masking.by_mark
    is_whole = by_mark or bool(config.tokenizer)
    words = np.zeros(0, np.int32)
    if config.tokenizer and not (by_mark and _mark(config) in found.tobytes()):
        found, words = config.tokens.ids_and_words(found.tobytes().decode())
    elif is_whole:
        found = _of_marked(found.tobytes(), config)
    spare = len(found) - config.length
    start = int(rng.integers(spare, endpoint=True)) if rng is not None and spare > 0 else 0
    part = found[start : start + config.length]
    # Of bytes after the cut: a text may be long.
    part = part if is_whole else _of_part(part.tobytes(), config)
    whole, words_of = np.full(config.length, pad_id(config), config.dtype), np.full(config.length, -1, np.int32)
    whole[: len(part)] = part
    words = words[start : start + config.length]
    words_of[: len(words)] = words
    return whole, len(part), words_of, spare > 0


def _of_marked(content: bytes, config: TextConfig) -> NDArray[np.signedinteger]:
    """Return the ids of a text, that of the mask token in the place of each mark."""
    first, *others = (_of_part(part, config) for part in content.split(_mark(config)))
    mask = np.array([mask_id(config)], first.dtype)
    return np.concatenate([first, *(ids for part in others for ids in (mask, part))])


def _of_part(content: bytes, config: TextConfig) -> NDArray[np.signedinteger]:
    if config.tokenizer:
        return config.tokens.ids(content.decode())
    # 262 ids are more than a byte can tell apart.
    return np.frombuffer(content, np.uint8).astype(np.int16) + NUM_SPECIAL


def _mark(config: TextConfig) -> bytes:
    return config.special_tokens["mask_token"].encode() if config.tokenizer else BYTE_MARK


def whole_text(content: bytes, config: TextConfig) -> NDArray[np.signedinteger]:
    """Return the ids of a text of any length, also of an empty one."""
    return _of_part(content, config) if content else np.zeros(0, config.dtype)


def never_written(config: TextConfig) -> list[int]:
    """Return the ids that no text has: those that pad and hide, and the others of bytes that are no byte."""
    if not config.tokenizer:
        return list(range(NUM_SPECIAL))
    return sorted({_id(config, key) for key in config.special_tokens})


def words(ids: NDArray[np.signedinteger], config: TextConfig) -> str:
    """Return the text of ids; of bytes "_" for what is hidden, and a replacement character for what is no UTF-8."""
    if config.tokenizer:
        return config.tokens.words(ids.tolist())
    # 0xFF is in no UTF-8, and becomes a replacement character.
    letters = np.where(ids >= NUM_SPECIAL, ids - NUM_SPECIAL, np.where(ids == MASK, ord("_"), 0xFF))
    return letters.astype(np.uint8).tobytes().decode(errors="replace")


def pad_id(config: TextConfig) -> int:
    """Return the id behind shorter texts."""
    return _id(config, "pad_token") if config.tokenizer else PAD


def mask_id(config: TextConfig) -> int:
    """Return the id in the place of a hidden one."""
    return _id(config, "mask_token") if config.tokenizer else MASK


def _id(config: TextConfig, key: str) -> int:
    number = config.tokens.tokenizer.token_to_id(config.special_tokens[key])
    assert number is not None, "the problems of the section say so"
    return number
