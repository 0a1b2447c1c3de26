"""Texts to ids and back, of bytes and of tokens, and what stands where there is no text."""

from pathlib import Path

import numpy as np
import pytest

from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transform_config import MaskingConfig
from data_shards.modalities.transforms.masking import mask_tokens
from data_shards.modalities.transforms.text import MASK, PAD, fit_words, mask_id, never_written, whole_text, words

BYTES = TextConfig(num_bytes=4)


def ids(text: str) -> list[int]:
    return [byte + 6 for byte in text.encode()]


@pytest.mark.parametrize(
    ("text", "expected", "length", "is_longer"),
    [
        ("ab", [*ids("ab"), PAD, PAD], 2, False),
        ("abcd", ids("abcd"), 4, False),
        ("abcde", ids("abcd"), 4, True),
        ("é\0", [*ids("é\0"), PAD], 3, False),
    ],
)
def test_bytes_are_ids_after_the_special_ones_and_belong_to_no_word(
    text: str, expected: list[int], length: int, is_longer: bool
) -> None:
    found, num_found, words_of, is_cut = fit_words(text.encode(), BYTES, None)
    assert (found.tolist(), num_found, words_of.tolist(), is_cut) == (expected, length, [-1] * 4, is_longer)
    assert (found.dtype, words_of.dtype) == (np.int16, np.int32)


def test_training_reads_any_part_of_a_longer_text_and_the_beginning_of_others() -> None:
    starts = {tuple(fit_words(b"abcdefg", BYTES, np.random.default_rng(seed))[0].tolist()) for seed in range(60)}
    assert starts == {tuple(ids(part)) for part in ("abcd", "bcde", "cdef", "defg")}
    assert fit_words(b"ab", BYTES, np.random.default_rng(0))[0].tolist() == [*ids("ab"), PAD, PAD]


def test_ids_become_the_text_with_a_sign_for_what_is_hidden_or_no_byte() -> None:
    assert words(np.array([*ids("a\0"), MASK, PAD, 5, *ids("é")], np.int16), BYTES) == "a\0_\ufffd\ufffdé"


def test_a_text_of_any_length_has_its_ids_and_an_empty_one_none(tokenizers: dict[str, Path]) -> None:
    tokens = TextConfig(tokenizer=str(tokenizers["unigram"]), num_tokens=4)
    for config in (BYTES, tokens):
        assert whole_text(b"", config).tolist() == []
        assert whole_text(b"", config).dtype == config.dtype
    assert whole_text(b"abcdefg", BYTES).tolist() == ids("abcdefg")
    text = "a cat and a dog sat on the mat"
    assert whole_text(text.encode(), tokens).tolist() == tokens.tokens.tokenizer.encode(text).ids


def test_ids_that_no_text_has_are_the_special_ones(tokenizers: dict[str, Path]) -> None:
    assert never_written(BYTES) == [0, 1, 2, 3, 4, 5]
    for kind, pad, mask in (("unigram", "<pad>", "<mask>"), ("bytes", "[PAD]", "[MASK]")):
        config = TextConfig(tokenizer=str(tokenizers[kind]), num_tokens=4)
        number = config.tokens.tokenizer.token_to_id
        assert never_written(config) == sorted([number(pad), number(mask)])


def test_marks_in_a_text_are_hidden_where_that_is_asked_for(tokenizers: dict[str, Path]) -> None:
    by_mark = MaskingConfig(by_mark=True)
    section = TextConfig(num_bytes=12, masking=by_mark)
    found, length, *_ = fit_words(b"a[MASK]b[MASK]", section, None)
    assert found[:length].tolist() == [*ids("a"), MASK, *ids("b"), MASK]
    # Without it a mark is a text as any other.
    assert fit_words(b"a[MASK]b", TextConfig(num_bytes=12), None)[0][:8].tolist() == ids("a[MASK]b")
    tokens = TextConfig(tokenizer=str(tokenizers["unigram"]), num_tokens=30, masking=by_mark)
    encode = tokens.tokens.tokenizer.encode
    found, length, *_ = fit_words(b"the dog<mask>sat", tokens, None)
    assert found[:length].tolist() == [*encode("the dog").ids, mask_id(tokens), *encode("sat").ids]
    # Words have numbers where there is no mark.
    found, length, words_of, _ = fit_words(b"the dog", tokens, None)
    assert found[:length].tolist() == encode("the dog").ids
    assert {0, 1} <= set(words_of[:length].tolist())
    assert set(words_of[length:].tolist()) == {-1}


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_of_tokens_without_a_word_nothing_is_hidden(rng: np.random.Generator | None) -> None:
    ids, words_of = np.array([5, 0, 0], np.int32), np.full(3, -1, np.int32)
    masked, targets = mask_tokens(ids, words_of, 1, 9, MaskingConfig(1.0), rng)
    assert (masked.tolist(), targets.tolist()) == ([5, 0, 0], [0, 0, 0])
    masked, targets = mask_tokens(ids, np.array([0, 0, -1], np.int32), 2, 9, MaskingConfig(1.0), rng)
    # -1 stands for the true id 0.
    assert (masked.tolist(), targets.tolist()) == ([9, 9, 0], [5, -1, 0])
