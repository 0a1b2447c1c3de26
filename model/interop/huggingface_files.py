"""The files next to Hugging Face's config.json: the preprocessing of images and texts.

Only dictionaries here; who reads and writes the files is the command line. docs/parity.md has what differs.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from model.modalities.adapters.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN
from model.modalities.image import ImageInput
from model.modalities.pixel_range import PixelRange
from model.modalities.text import TextInput

PREPROCESSOR, TOKENIZER, TOKENIZER_SETTINGS = "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")
BYTE_VOCABULARY = len(SPECIAL) + 256
# Pillow's numbers of its filters.
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
_NORMALISED: dict[PixelRange, dict[str, Any]] = {
    "unit": {"do_normalize": False},
    "centred": {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    "imagenet": {"do_normalize": True, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_DEVIATION)},
}


def preprocessor(image: ImageInput, *, resize: str, centre_crop: float, is_cut: bool = True) -> dict[str, Any]:
    """Return the preprocessor_config.json that makes of a picture what the network was trained on.

    `resize` is the filter, `centre_crop` the part of the shorter side that is kept about the centre; unless the picture
    `is_cut`, all of it is stretched to the size.
    """
    size = {"height": image.height, "width": image.width}
    return {
        "image_processor_type": "PerceiverImageProcessor",
        "do_convert_rgb": True,
        "do_center_crop": is_cut,
        # It keeps size / crop_size of the shorter side.
        "crop_size": {name: _whole(side / centre_crop) for name, side in size.items()},
        "do_resize": True,
        "size": size,
        "resample": _FILTERS[resize],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        **_NORMALISED[image.pixel_range],
    }


def picture(preprocessor: Mapping[str, Any]) -> tuple[int, PixelRange]:
    """Return the side of the images that a preprocessor_config.json gives, and the range of their pixels.

    Raises ValueError if the network could not read them from bytes by itself.
    """
    size = preprocessor.get("size", 224)
    sides = {size} if isinstance(size, int) else {int(size["height"]), int(size["width"])}
    if len(sides) > 1:
        raise ValueError(f"{PREPROCESSOR}: size: expected as many rows as columns, got {size}")
    side = sides.pop()
    # What the file leaves out is transformers' default: normalised as ImageNet.
    if not preprocessor.get("do_normalize", True):
        return side, "unit"
    mean, deviation = (
        _each(preprocessor.get(key, default))
        for key, default in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_DEVIATION))
    )
    for name, values in _NORMALISED.items():
        if values["do_normalize"] and (mean, deviation) == (tuple(values["image_mean"]), tuple(values["image_std"])):
            return side, name
    raise ValueError(
        f"{PREPROCESSOR}: image_mean and image_std: expected ImageNet's, or 0.5 for all, got {mean} and {deviation}; "
        "no pixel_range of an image is that"
    )


def framing(preprocessor: Mapping[str, Any]) -> tuple[str, float, Literal["crop", "stretch"]]:
    """Return filter, centre_crop and fit of an image in the data that are those of a preprocessor_config.json.

    Raises ValueError for a filter or a crop that no image of the data has.
    """
    number = preprocessor.get("resample", _FILTERS["bicubic"])
    resize = next((name for name, each in _FILTERS.items() if each == number), None)
    if resize is None:
        raise ValueError(f"{PREPROCESSOR}: resample: expected one of {sorted(_FILTERS.values())}, got {number}")
    if not preprocessor.get("do_center_crop", True):
        return resize, 1.0, "stretch"
    size, crop = (_sides(preprocessor.get(key, default)) for key, default in (("size", 224), ("crop_size", 256)))
    parts = {side / whole if whole > 0 else math.inf for side, whole in zip(size, crop, strict=True)}
    # Of a smaller crop_size transformers makes black borders.
    if len(parts) > 1 or not 0 < max(parts) <= 1:
        raise ValueError(f"{PREPROCESSOR}: crop_size: expected one ratio to size, of at least 1, got {crop} and {size}")
    return resize, parts.pop(), "crop"


def _sides(size: Any) -> tuple[Any, Any]:  # noqa: ANN401  # what a file says
    """Return rows and columns: older releases write one number for both."""
    return (size["height"], size["width"]) if isinstance(size, Mapping) else (size, size)


def _each(values: Any) -> tuple[Any, ...]:  # noqa: ANN401  # what a file says
    """Return a value for each colour: a file of grey pictures has one."""
    return tuple(values) if isinstance(values, list | tuple) else (values,) * 3


def byte_tokenizer(text: TextInput) -> dict[str, dict[str, Any]]:
    """Return the files of a tokenizer that gives the ids of a text's bytes: 6 and the byte, and nothing around them.

    Hugging Face's own for Perceivers puts [CLS] before and [SEP] after the bytes, which no text here was trained with.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *_byte_letters()))}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokens: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": letters,
        "post_processor": None,
        "decoder": letters,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": text.max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        # A text that holds "[PAD]" holds five bytes.
        "split_special_tokens": True,
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL},
    }
    return {TOKENIZER: tokens, TOKENIZER_SETTINGS: settings}


def own_tokenizer(content: Mapping[str, Any], max_tokens: int, special: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the files of a run's own tokenizer, which give the ids that its network was trained on.

    Tokens around a text, truncation and padding of the file were not used, and are taken out. `special` has the names
    of its tokens by their purpose: {"pad_token": "[PAD]"}.
    """
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
        # Not left to the library: of a text, spaces before commas stay, and "[MASK]" is text and no token.
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        **special,
    }
    alone = {"truncation": None, "padding": None, "post_processor": None}
    return {TOKENIZER: {**content, **alone}, TOKENIZER_SETTINGS: settings}


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in files of tokenizers: itself where it prints, else one above 255."""
    # GPT-2's table, which tokenizers' ByteLevel has: a vocabulary in JSON can hold no bytes that do not print.
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    above = iter(range(256, 512))
    return [chr(byte if byte in prints else next(above)) for byte in range(256)]


def _whole(number: float) -> int | float:
    return round(number) if number == round(number) else number
