"""Text by a tokenizer.json: its ids and no others, the same in every process, and what is wrong with a file."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.config import DataConfig
from data_shards.loading.admission import BadSampleError
from data_shards.loading.sample import prepare
from data_shards.modalities.decoding import tokens
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transform_config import MaskingConfig
from data_shards.modalities.transforms.masking import mask_tokens
from data_shards.modalities.transforms.text import fit, fit_words, mask_id, words

WORDS = "the lazy dog jumps"
KINDS = ("bytes", "unigram")


def section(tokenizers: dict[str, Path], kind: str = "unigram", **changes: Any) -> TextConfig:  # noqa: ANN401
    return TextConfig(tokenizer=str(tokenizers[kind]), **{"num_tokens": 32, **changes})


def changed(path: Path, out: Path, **changes: object) -> str:
    """A copy of a tokenizer with other top-level keys."""
    out.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(out)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_becomes_the_ids_of_its_tokens_and_back(tokenizers: dict[str, Path], kind: str) -> None:
    from tokenizers import Tokenizer

    config = section(tokenizers, kind)
    ids, length = fit(WORDS.encode(), config, None)
    assert ids[:length].tolist() == Tokenizer.from_file(str(tokenizers[kind])).encode(WORDS).ids
    assert (ids.dtype, ids.shape, config.dtype) == (np.int32, (32,), "int32")
    pad = "[PAD]" if kind == "bytes" else "<pad>"
    assert set(ids[length:].tolist()) == {config.tokens.tokenizer.token_to_id(pad)}
    assert words(ids[:length], config) == WORDS
    assert config.sizes == {"max_tokens": 32, "vocabulary": config.tokens.tokenizer.get_vocab_size()}
    assert list(config.problems()) == []


def test_a_mask_token_that_stands_in_a_text_hides_nothing(tokenizers: dict[str, Path]) -> None:
    config = section(tokenizers, "bytes", masking=MaskingConfig(0.0))
    ids, _ = fit(b"the [MASK] dog <mask>", config, None)
    assert mask_id(config) not in ids
    # In a process of its own too.
    again = pickle.loads(pickle.dumps(config))
    np.testing.assert_array_equal(fit(b"the [MASK] dog <mask>", again, None)[0], ids)


def test_padding_truncation_and_tokens_around_a_text_are_not_used_and_named(
    tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, processors

    own = Tokenizer.from_file(str(tokenizers["unigram"]))
    own.enable_truncation(2)
    own.enable_padding(pad_id=0, pad_token="<pad>", length=7)
    own.post_processor = processors.TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    own.save(str(tmp_path / "own.json"))
    config = TextConfig(tokenizer=str(tmp_path / "own.json"), num_tokens=32)
    np.testing.assert_array_equal(
        fit(WORDS.encode(), config, None)[0], fit(WORDS.encode(), section(tokenizers), None)[0]
    )
    (note,) = config.notes()
    assert "own truncation and padding and tokens around a text: not used" in note
    assert not [*section(tokenizers).notes(), *TextConfig().notes()]


def test_a_longer_text_is_cut_at_its_end_and_in_training_anywhere(tokenizers: dict[str, Path]) -> None:
    config, whole = section(tokenizers, num_tokens=3), section(tokenizers).tokens.ids(WORDS)
    np.testing.assert_array_equal(fit(WORDS.encode(), config, None)[0], whole[:3])
    starts = {tuple(fit(WORDS.encode(), config, np.random.default_rng(seed))[0]) for seed in range(200)}
    assert starts == {tuple(whole[start : start + 3]) for start in range(len(whole) - 2)}


def test_single_tokens_are_hidden_by_the_generator_and_in_evaluation_always_the_same(
    tokenizers: dict[str, Path],
) -> None:
    config = section(tokenizers, masking=MaskingConfig(0.3))
    members = {"txt": WORDS.encode()}
    ids = fit(members["txt"], config, None)[0]
    data = DataConfig(inputs={"text": config})
    count = 0
    for seed in range(100):
        sample = prepare(members, data, np.random.default_rng(seed))
        array, target = sample.arrays["text"], sample.targets["text"]
        np.testing.assert_array_equal(array == mask_id(config), target != 0)
        np.testing.assert_array_equal(np.where(target != 0, target, array), ids)
        count += int((target != 0).sum())
    assert count / 100 / sample.lengths["text"] == pytest.approx(0.3, abs=0.05)
    first, again = (prepare(members, data).targets["text"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.any()


def test_the_id_0_can_be_hidden_as_any_other() -> None:
    ids = np.array([0, 5, 0, 1], np.int32)
    each_a_word = np.array([0, 1, 2, -1], np.int32)
    masked, target = mask_tokens(ids, each_a_word, 3, 9, MaskingConfig(1.0), np.random.default_rng(0))
    assert masked.tolist() == [9, 9, 9, 1]
    assert target.tolist() == [-1, 5, -1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_hidden_with_all_its_tokens_in_every_part_of_a_text(tokenizers: dict[str, Path], kind: str) -> None:
    config = section(tokenizers, kind, num_tokens=9, masking=MaskingConfig(0.4))
    text = "  the lazy dog jumps over antidisestablishment 3.14159, and\tthe lazy dog  " * 2
    tokens = config.tokens.tokenizer
    _, of_word = config.tokens.ids_and_words(text)
    for number, word in enumerate(text.split()):
        spans = [text[s:e] for (s, e), of in zip(tokens.encode(text).offsets, of_word, strict=True) if of == number]
        assert "".join(spans).strip() == word
    assert max(np.bincount(of_word[of_word >= 0])) > 1, "no word has several tokens"
    seen = set()
    for seed in range(30):
        part, length, words_of, _ = fit_words(text.encode(), config, np.random.default_rng(seed))
        masked, target = mask_tokens(
            part, words_of, length, mask_id(config), config.masking, np.random.default_rng(seed)
        )
        hidden = target != 0
        assert ((masked == mask_id(config)) == hidden).all()
        for number in set(words_of[words_of >= 0].tolist()):
            seen.add(len(set(hidden[words_of == number].tolist())))
        assert not hidden[words_of < 0].any()
        assert hidden.any()
    assert seen == {1}, "a part of a word is hidden"


def test_a_text_without_a_token_takes_nothing_with_it(tokenizers: dict[str, Path]) -> None:
    from data_shards.format.annotations import OWN
    from data_shards.loading.admission import Intake

    nothing = changed(
        tokenizers["unigram"],
        tokenizers["unigram"].with_name("strip.json"),
        normalizer={"type": "Strip", "strip_left": True, "strip_right": True},
        pre_tokenizer=None,
    )
    inputs = {"text": TextConfig(tokenizer=nothing), "other": TextConfig(members="caption.txt")}
    config = DataConfig(inputs=inputs, modality_dropout={"other": 1.0})
    both = {"txt": b"  ", "caption.txt": b"a cat"}
    for rng in (None, np.random.default_rng(0)):
        assert prepare(both, config, rng).lengths == {"other": 5}
    with pytest.raises(ValueError, match=r"has nothing in it, and data\.require asks for it"):
        prepare(both, DataConfig(inputs=inputs, require=("text",)))
    intake = Intake(config, OWN, 0, {})

    class Only:
        def sample(self, shard: int, number: int) -> tuple[str, dict[str, bytes]]:
            return "key", {"txt": b"  "}

    with pytest.raises(BadSampleError, match="has none of other, text"):
        intake.sample(Only(), 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"num_tokens": 0}, ["num_tokens"]),
        ({"num_bytes": 9}, ["num_bytes"]),
        ({"pad_token": "none"}, ["pad_token"]),
        ({"mask_token": "none"}, []),
        ({"mask_token": "none", "masking": MaskingConfig()}, ["mask_token"]),
        ({"mask_token": "▁", "masking": MaskingConfig()}, []),
    ],
)
def test_a_problem_of_a_tokenized_text_names_its_key(
    tokenizers: dict[str, Path], changes: dict[str, Any], keys: list[str]
) -> None:
    assert [key for key, _ in section(tokenizers, **changes).problems()] == keys


@pytest.mark.parametrize("changes", [{"num_tokens": 9}, {"mask_token": "m"}, {"pad_token": "p"}])
def test_what_belongs_to_a_tokenizer_has_no_meaning_for_bytes(changes: dict[str, Any]) -> None:
    assert [key for key, _ in TextConfig(**changes).problems()] == list(changes)


def test_a_tokenizer_without_special_tokens_is_refused_with_the_remedy(
    tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(tokenizers["bytes"], tmp_path / "plain.json", added_tokens=[])
    found = dict(TextConfig(tokenizer=path, masking=MaskingConfig()).problems())
    assert found.keys() == {"pad_token", "mask_token"}
    assert "has no token [MASK], <mask>, <|mask|>; set mask_token to its token that" in found["mask_token"]


UNK = {"type": "Unigram", "unk_id": 9, "vocab": [["a", -1.0]]}
HOSTILE: dict[str, bytes | dict[str, Any]] = {
    "empty": b"",
    "no JSON": b"\xff\xfe{",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no model": {"model": None},
    "a model of no kind": {"model": {}},
    "a negative id": {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
    "a huge id": {"model": {"type": "BPE", "vocab": {"a": 4_000_000_000}, "merges": []}},
    "an id twice, over which the library panics": {
        "model": {"type": "BPE", "vocab": {"h": 0, "e": 0}, "merges": [["h", "e"]]}
    },
    "no token for what is unknown": {"model": UNK},
    "a chunk of no length, over which the library panics": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a broken expression": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
    },
    "random merges": {"model": {"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []}},
    "no tokens": {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_one_sentence(
    tokenizers: dict[str, Path], tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path, content = tmp_path / "tokenizer.json", HOSTILE[case]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        changed(tokenizers["bytes"], path, **content)
    ((key, sentence),) = TextConfig(tokenizer=str(path)).problems()
    assert key == "tokenizer"
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    assert len(sentence) < 500 + len(str(path))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("what", ["nothing", "a folder"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "missing.json" if what == "nothing" else tmp_path
    ((key, sentence),) = TextConfig(tokenizer=str(path)).problems()
    assert (key, sentence.startswith(f"{path}: ")) == ("tokenizer", True)


def test_a_copy_that_is_named_by_its_hash_must_have_it(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    content = tokenizers["unigram"].read_bytes()
    copy = tmp_path / f"{hashlib.sha256(content).hexdigest()}.json"
    copy.write_bytes(content)
    assert tokens.read(str(copy)).vocabulary == tokens.read(str(tokenizers["unigram"])).vocabulary
    copy.write_bytes(content + b" ")
    with pytest.raises(ValueError, match="is not the file that the run was made with"):
        tokens.read(str(copy))


def test_a_tokenizer_has_a_greatest_size_and_a_greatest_id(
    tokenizers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tokenizers["unigram"].read_bytes()
    known = tokens.read(str(tokenizers["unigram"])).vocabulary
    for number, (most_bytes, most_ids, sentence) in enumerate(
        [
            (len(content), known, ""),
            (len(content) - 1, known, f"is larger than {len(content) - 1} bytes, and no tokenizer is"),
            (len(content), known - 1, f"has ids up to {known - 1} for {known} tokens, expected 1 to {known - 1} ids"),
        ]
    ):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        monkeypatch.setattr(tokens, "MAX_BYTES", most_bytes)
        monkeypatch.setattr(tokens, "MAX_IDS", most_ids)
        if sentence:
            with pytest.raises(ValueError, match=sentence):
                tokens.read(str(path))
        else:
            assert tokens.read(str(path)).vocabulary == known
