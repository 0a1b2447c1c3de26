"""A section is sized by the samples that can be read, where those are at least half."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transform_config import MaskingConfig
from launch.planning.fitted_inputs import fitted, section_of


def picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (12, 8)).save(content, "png")
    return content.getvalue()


GOOD, BAD = {"png": picture()}, {"png": b"no"}
SIZES = {"height": 8, "width": 12}


@pytest.mark.parametrize(
    ("samples", "is_read"),
    [
        ([GOOD], True),
        ([GOOD, BAD], True),
        ([BAD, GOOD, BAD, GOOD], True),
        ([GOOD, BAD, BAD], False),
        # A sample with two that fit says nothing, and those after it do.
        ([{"png": b"no", "jpg": b"no"}, GOOD], True),
        ([{"txt": b"no"}, GOOD], True),
    ],
)
def test_half_of_the_members_must_be_readable(samples: list[dict[str, bytes]], is_read: bool) -> None:
    keys, reasons = fitted(ImageConfig.lenient(), samples, {"png"}, "")
    if is_read:
        assert keys is not None
        assert {name: keys[name] for name in ("modality", *SIZES)} == {"modality": "image", **SIZES}
        assert "members" not in keys
        assert reasons == []
    else:
        assert keys is None
        [reason] = reasons
        assert reason.startswith("image: ")


def test_where_no_sample_has_it_alone_that_is_the_reason() -> None:
    assert fitted(ImageConfig.lenient(), [{"png": b"x", "jpg": b"x"}], {"png", "jpg"}, "") == (
        None,
        ["image: no sample has it alone"],
    )


@pytest.mark.parametrize(("members", "written"), [("a.png", "a.png"), (("a.png", "b.png"), ["a.png", "b.png"])])
def test_members_are_written_as_yaml_has_them(members: Any, written: Any) -> None:  # noqa: ANN401
    keys, _ = fitted(ImageConfig(members=members), [{"a.png": picture()}], {"a.png"}, "")
    assert keys is not None
    assert keys["members"] == written
    assert section_of(keys).members == members


def test_an_array_that_is_no_cloud_is_read_as_an_array_and_the_first_that_fits_is_taken() -> None:
    content = io.BytesIO()
    np.save(content, np.ones((8, 12, 2), np.float32))
    keys, reasons = fitted(section_of({"modality": "points"}), [{"npy": content.getvalue()}], {"npy"}, "")
    assert keys is not None
    assert (keys["modality"], keys["shape"], reasons) == ("array", [8, 12, 2], [])
    both = fitted(section_of({"modality": "points"}), [{"npy": content.getvalue()}], set(ArrayConfig.usual), "")
    assert both == (keys, [])
    # Nothing but a picture reads what a picture cannot.
    assert len(fitted(ImageConfig.lenient(), [BAD], {"png"}, "")[1]) == 1
    keys, _ = fitted(ArrayConfig(members="a.npy"), [{"a.npy": content.getvalue()}], {"a.npy"}, "")
    assert keys is not None
    assert (keys["modality"], keys["members"]) == ("array", "a.npy")


def test_a_section_of_keys_has_its_masking() -> None:
    found = section_of({"modality": "text", "num_bytes": 16, "masking": {"probability": 0.25}})
    assert found == TextConfig(num_bytes=16, masking=MaskingConfig(probability=0.25))
    assert section_of({"modality": "text", "num_bytes": 16}) == TextConfig(num_bytes=16)


@pytest.mark.parametrize(("num_words", "num_tokens"), [(3, 16), (17, 32), (600, 512)])
def test_tokens_are_read_of_texts_alone_and_at_most_so_many(tmp_path: Path, num_words: int, num_tokens: int) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[MASK]": 1, "word": 2}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    samples = [{"txt": b"word " * num_words}]
    keys, _ = fitted(TextConfig.lenient(), samples, {"txt"}, str(path))
    assert keys == {"modality": "text", "tokenizer": str(path), "num_tokens": num_tokens}
    of_bytes, _ = fitted(TextConfig.lenient(), samples, {"txt"}, "")
    assert of_bytes is not None
    assert "tokenizer" not in of_bytes
    pictures, _ = fitted(ImageConfig.lenient(), [GOOD], {"png"}, str(path))
    assert pictures is not None
    assert "tokenizer" not in pictures
