"""The files that belong to a network besides its weights: class names, and the preprocessing of its inputs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.run import RunConfig
from data_shards.files import typed_json
from data_shards.files.quoting import shown
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transforms.text import pad_id
from data_shards.sources.parsing.class_names import distinct
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_files import (
    BYTE_VOCABULARY,
    PREPROCESSOR,
    byte_tokenizer,
    framing,
    own_tokenizer,
    preprocessor,
)
from model.modalities.image import ImageInput
from model.modalities.text import TextInput

CLASSES = "classes.json"
_FOREIGN = (PREPROCESSOR, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files of Hugging Face's that an import keeps for the next export."""
_TEXT_FILES = _FOREIGN[1:]
# The part of a picture that the released models look at.
_RELEASED_CROP = 224 / 256


@dataclass(frozen=True)
class Surroundings:
    """The files of an export besides the weights."""

    classes: tuple[str, ...] = ()
    """Names of the classes of the sample's label, in order; empty if they are not known."""
    resize: str = "bicubic"
    """Filter by which pictures come to their size."""
    centre_crop: float = _RELEASED_CROP
    """Part of a picture's shorter side that is kept about its centre."""
    fit: str = "crop"
    """How images of another aspect ratio are resized."""
    foreign: Mapping[str, Any] = field(default_factory=dict)
    """Hugging Face's files as they were imported, or of a run's tokenizer, by name."""
    pads: Mapping[str, int] = field(default_factory=dict)
    """The id that pads a text, by the name of the input, where it has a tokenizer."""
    notes: tuple[str, ...] = ()
    """The facts that could not be found out."""
    unwritten: tuple[str, ...] = ()
    """Sentences on what is not among Hugging Face's files, and why."""

    def hugging_face(self, config: PerceiverConfig) -> dict[str, Any]:
        """Return the files beside config.json and the weights, by name."""
        # What was imported goes out as it came in; only what is missing is made.
        files = dict(self.foreign)
        image, text = config.input_of(ImageInput), config.input_of(TextInput)
        is_rgb = image is not None and (image.channels, image.dtype) == (3, "uint8")
        if image and is_rgb and PREPROCESSOR not in files and self.fit != "pad":
            files[PREPROCESSOR] = preprocessor(
                image, resize=self.resize, centre_crop=self.centre_crop, is_cut=self.fit == "crop"
            )
        if text and text.vocabulary == BYTE_VOCABULARY and not files.keys() & set(_TEXT_FILES):
            files |= byte_tokenizer(text)
        return files

    def labels(self) -> dict[str, Any]:
        """Return what a config.json says of the classes."""
        if not self.classes:
            return {}
        return {
            "id2label": {str(index): name for index, name in enumerate(self.classes)},
            "label2id": {name: index for index, name in enumerate(self.classes)},
        }


def of_run(config: RunConfig, classes: tuple[str, ...], notes: Sequence[str] = ()) -> Surroundings:
    """Return what the data of a run says, with the names of its classes and what is to be noted of them."""
    images = [section for section in config.data.ordered_inputs.values() if isinstance(section, ImageConfig)]
    image = images[0] if images else ImageConfig()
    unwritten = []
    if image.fit == "pad":
        unwritten.append(
            "no preprocessor is written: Hugging Face's for Perceivers cannot pad, as fit=pad of the input does"
        )
    inputs = config.data.ordered_inputs.items()
    texts = {name: each for name, each in inputs if isinstance(each, TextConfig) and each.tokenizer}
    # A folder of Hugging Face's has room for one tokenizer, as for one preprocessor.
    foreign = _tokenizer(next(iter(texts.values()))) if texts else {}
    pads = {name: pad_id(text) for name, text in texts.items()}
    if (image.num_channels, image.dtype) != (3, "uint8"):
        unwritten.append(
            "no preprocessor is written: Hugging Face's is for red, green and blue in bytes, and the input has "
            f"num_channels={image.num_channels} and values={image.values}"
        )
    return Surroundings(
        classes, image.resize, image.centre_crop, image.fit, foreign, pads, tuple(notes), tuple(unwritten)
    )


def _tokenizer(text: TextConfig) -> dict[str, Any]:
    return own_tokenizer(typed_json.read_object(Path(text.tokenizer)), text.num_tokens, text.special_tokens)


def of_import(folder: Path) -> Surroundings:
    """Return what `perceiver import` kept in the folder of a network."""
    kept = dict(_kept(folder, (CLASSES, *_FOREIGN)))
    classes = typed_json.texts(kept.pop(CLASSES, {}).get("classes", []), f"{folder / CLASSES}: classes")
    return Surroundings(classes, *_framing(kept), foreign=kept)


def of_hugging_face(folder: Path, config: Mapping[str, Any]) -> Surroundings:
    """Return what a folder of Hugging Face's says beside the weights; names that it made up itself are none."""
    given = config.get("id2label") or {}
    if not isinstance(given, dict) or not all(str(index).isdecimal() for index in given):
        raise ValueError(f"id2label: expected names by the numbers of their classes, got {shown(given)}")
    named = {int(index): str(name) for index, name in given.items()}
    # As a list of all numbers: a gap would shift every name behind it.
    classes = tuple(named.get(index, f"LABEL_{index}") for index in range(len(named)))
    if all(name == f"LABEL_{index}" for index, name in enumerate(classes)):
        classes = ()
    foreign = dict(_kept(folder, _FOREIGN))
    # ImageNet names two classes crane, of which label2id would have one.
    named_apart = tuple(distinct(classes, map(str, range(len(classes)))))
    return Surroundings(named_apart, *_framing(foreign), foreign=foreign)


def _framing(foreign: Mapping[str, Any]) -> tuple[str, float, str]:
    """Return filter, crop and fit as Hugging Face's file says them; without one those of the released networks."""
    return framing(foreign.get(PREPROCESSOR, {}))


def keep(surroundings: Surroundings, folder: Path) -> None:
    """Write into a folder what `of_import` reads."""
    files = dict(surroundings.foreign)
    if surroundings.classes:
        files[CLASSES] = {"classes": list(surroundings.classes)}
    write(files, folder)


def write(files: Mapping[str, Any], folder: Path) -> None:
    """Write files of JSON."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _kept(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in names:
        if (folder / name).is_file():
            yield name, typed_json.read_object(folder / name)
