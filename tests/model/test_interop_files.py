"""Hugging Face's processor and tokenizer, from our files, prepare pictures and texts as the loader does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transforms import image, text
from model.interop.huggingface_files import (
    PREPROCESSOR,
    TOKENIZER,
    TOKENIZER_SETTINGS,
    byte_tokenizer,
    framing,
    own_tokenizer,
    picture,
    preprocessor,
)
from model.modalities.adapters.pixels import scaled_pixels
from model.modalities.image import ImageInput
from model.modalities.pixel_range import PixelRange
from model.modalities.text import TextInput

SIDE = 12


def processor_of(folder: Path, config: ImageInput, section: ImageConfig) -> Any:  # noqa: ANN401  # it has no type
    is_cut = section.fit == "crop"
    said = preprocessor(config, resize=section.resize, centre_crop=section.centre_crop, is_cut=is_cut)
    (folder / PREPROCESSOR).write_text(json.dumps(said))
    (folder / "config.json").write_text('{"model_type": "perceiver"}')
    return transformers.AutoImageProcessor.from_pretrained(folder)


def both(folder: Path, pixels: np.ndarray, pixel_range: PixelRange, section: ImageConfig) -> tuple[Any, Any]:
    """What transformers' processor and what our loader and network make of a picture."""
    config = ImageInput(height=SIDE, width=SIDE, pixel_range=pixel_range)
    Image.fromarray(pixels).save(folder / "picture.png")
    processor = processor_of(folder, config, section)
    theirs = processor(Image.open(folder / "picture.png"), return_tensors="pt")["pixel_values"][0].permute(1, 2, 0)
    read, _ = image.fit((folder / "picture.png").read_bytes(), section, None)
    return theirs.float(), scaled_pixels(torch.from_numpy(read.copy()), pixel_range, torch.float32)


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("pixel_range", ["unit", "centred", "imagenet"])
def test_a_square_picture_becomes_the_same_pixels(tmp_path: Path, pixel_range: PixelRange, resize: Any) -> None:  # noqa: ANN401
    section = ImageConfig(height=SIDE, width=SIDE, resize=resize)
    for side, channels in ((40, 3), (7, 3), (12, 3), (25, 1)):
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, channels), dtype=np.uint8)
        theirs, ours = both(tmp_path, pixels.squeeze(), pixel_range, section)
        # float32, scaled in another order.
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_a_part_of_a_picture_becomes_nearly_the_same_pixels(tmp_path: Path) -> None:
    """Transformers cuts whole pixels and then resizes; here a part is resized that may begin between two pixels."""
    section = ImageConfig(height=SIDE, width=SIDE, resize="bicubic", centre_crop=0.75)
    rows, columns = np.mgrid[0:50, 0:81] / 81
    smooth = np.stack([rows, columns, (rows + columns) / 2], axis=-1)
    theirs, ours = both(tmp_path, (smooth * 255).astype(np.uint8), "unit", section)
    assert (theirs - ours).abs().max() < 0.02
    other, _ = both(tmp_path, (smooth * 255).astype(np.uint8), "unit", ImageConfig(height=SIDE, width=SIDE))
    assert (other - ours).abs().max() > 0.05


def test_a_stretched_picture_becomes_the_same_pixels(tmp_path: Path) -> None:
    section = ImageConfig(height=SIDE, width=SIDE, fit="stretch")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 70, 3), dtype=np.uint8)
    theirs, ours = both(tmp_path, pixels, "unit", section)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pixel_range", ["unit", "centred", "imagenet"])
def test_a_preprocessor_says_again_what_it_was_made_of(pixel_range: PixelRange) -> None:
    said = preprocessor(ImageInput(height=28, width=28, pixel_range=pixel_range), resize="nearest", centre_crop=0.875)
    assert picture(json.loads(json.dumps(said))) == (28, pixel_range)
    assert said["crop_size"] == {"height": 32, "width": 32}


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("centre_crop", [1.0, 0.875, 0.3, 1 / 3])
def test_a_preprocessor_says_again_how_pictures_were_cut_and_resized(resize: str, centre_crop: float) -> None:
    config = ImageInput(height=28, width=28)
    said = json.loads(json.dumps(preprocessor(config, resize=resize, centre_crop=centre_crop)))
    found, part, fit = framing(said)
    assert (found, fit) == (resize, "crop")
    assert part == pytest.approx(centre_crop, rel=1e-12)
    assert part <= 1
    stretched = preprocessor(config, resize=resize, centre_crop=1.0, is_cut=False)
    assert framing(stretched) == (resize, 1.0, "stretch")


def test_what_a_preprocessor_leaves_out_is_as_the_released_networks_have_it() -> None:
    assert framing({}) == framing({"size": 224, "crop_size": 256}) == ("bicubic", 0.875, "crop")
    assert framing({"size": {"height": 64, "width": 32}, "crop_size": {"height": 128, "width": 64}})[1] == 0.5


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"resample": 4}, r"resample: expected one of \[0, 1, 2, 3\], got 4"),
        (
            {"crop_size": 223},
            r"crop_size: expected one ratio to size, of at least 1, got \(223, 223\) and \(224, 224\)",
        ),
        ({"crop_size": {"height": 256, "width": 300}}, r"crop_size: expected one ratio to size, .* got \(256, 300\)"),
        ({"crop_size": 0}, "crop_size: expected one ratio to size"),
        ({"crop_size": -256}, "crop_size: expected one ratio to size"),
        ({"size": -224}, "crop_size: expected one ratio to size"),
    ],
)
def test_a_crop_or_a_filter_that_no_image_has_is_refused(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^preprocessor_config\.json: {sentence}"):
        framing(said)


def test_another_scaling_is_refused() -> None:
    # As the released files have it: the defaults of the class.
    assert picture({"size": 224, "crop_size": 256}) == (224, "imagenet")
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: image_mean and image_std: .* got \(0\.1, 0\.2"):
        picture({"size": 224, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]})
    with pytest.raises(ValueError, match="size: expected as many rows as columns"):
        picture({"size": {"height": 2, "width": 3}})


def test_a_text_becomes_the_same_ids(tmp_path: Path) -> None:
    for name, content in byte_tokenizer(TextInput(max_tokens=24)).items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "config.json").write_text('{"model_type": "perceiver", "architectures": ["PerceiverForMaskedLM"]}')
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for written in ("a", "it's  here\n\t ", "hé漢字😀\x00", "[PAD] [CLS][MASK]", "x" * 40):
        found = tokenizer(written, padding="max_length", truncation=True)
        ids, length = text.fit(written.encode(), TextConfig(num_bytes=24), None)
        assert found["input_ids"] == ids.tolist()
        assert found["attention_mask"] == [1] * length + [0] * (24 - length)
        assert tokenizer.decode(ids[:length]) == written.encode()[:24].decode(errors="replace")
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, len(tokenizer)) == (0, 3, 262)


SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 24,
    "model_input_names": ["input_ids", "attention_mask"],
    "clean_up_tokenization_spaces": False,
    "split_special_tokens": True,
}


def test_the_tokenizer_of_bytes_changes_no_byte() -> None:
    files = byte_tokenizer(TextInput(max_tokens=24))
    assert files.keys() == {TOKENIZER, TOKENIZER_SETTINGS}
    tokens = files[TOKENIZER]
    vocabulary = tokens["model"].pop("vocab")
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    none = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor"))
    assert tokens == {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": letters,
        "decoder": letters,
        "model": {"type": "BPE", "merges": []},
        **none,
    }
    special = ("pad", "bos", "eos", "mask", "cls", "sep")
    named = {f"{name}_token": f"[{name.upper()}]" for name in special}
    assert files[TOKENIZER_SETTINGS] == SETTINGS | named
    assert [vocabulary[named[f"{name}_token"]] for name in special] == [0, 1, 2, 3, 4, 5]
    # Letters that print stand for themselves, others for the next above 255.
    assert len(vocabulary) == 6 + 256
    assert sorted(vocabulary.values()) == list(range(6 + 256))
    for byte, letter in {33: "!", 126: "~", 161: "¡", 172: "¬", 174: "®", 255: "ÿ"}.items():
        assert vocabulary[letter] == 6 + byte
    for byte, place in {0: 0, 10: 10, 32: 32, 127: 33, 160: 66, 173: 67}.items():
        assert vocabulary[chr(256 + place)] == 6 + byte


def test_a_tokenizer_of_a_run_has_nothing_around_its_tokens() -> None:
    content = {"model": {"type": "BPE"}, "truncation": {"max_length": 8}, "padding": {}, "post_processor": {"a": 1}}
    found = own_tokenizer(content, 24, {"pad_token": "<p>"})
    assert found == {
        TOKENIZER: {"model": {"type": "BPE"}, "truncation": None, "padding": None, "post_processor": None},
        TOKENIZER_SETTINGS: SETTINGS | {"pad_token": "<p>"},
    }


def test_a_preprocessor_says_the_whole_way_of_a_picture() -> None:
    image = ImageInput(height=12, width=24, pixel_range="centred")
    expected = {
        "image_processor_type": "PerceiverImageProcessor",
        "do_convert_rgb": True,
        "do_center_crop": True,
        "crop_size": {"height": 16, "width": 32},
        "do_resize": True,
        "size": {"height": 12, "width": 24},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    assert preprocessor(image, resize="bicubic", centre_crop=0.75) == expected
    stretched = preprocessor(image, resize="lanczos", centre_crop=0.9, is_cut=False)
    assert stretched == expected | {
        "do_center_crop": False,
        "crop_size": {"height": 12 / 0.9, "width": 24 / 0.9},
        "resample": 1,
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (224, "imagenet")),
        ({"size": 8, "do_normalize": False}, (8, "unit")),
        ({"size": {"height": 8, "width": 8}, "image_mean": 0.5, "image_std": [0.5] * 3}, (8, "centred")),
        ({"image_mean": [0.485, 0.456, 0.406]}, (224, "imagenet")),
    ],
)
def test_a_picture_has_the_side_and_range_that_its_file_says(said: dict[str, Any], expected: tuple[int, str]) -> None:
    assert picture(said) == expected


def test_a_mean_and_a_deviation_of_two_ranges_are_refused() -> None:
    for said in ({"image_mean": 0.5}, {"image_std": 0.5}):
        with pytest.raises(ValueError, match=r"image_mean and image_std: expected ImageNet's, or 0\.5 for all"):
            picture(said)
