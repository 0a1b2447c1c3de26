"""The members of one sample to arrays of the config's shapes: decode, transform, hide modalities."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from data_shards import members as member_names
from data_shards.batch import NO_LABEL, Sample
from data_shards.config import DataConfig
from data_shards.transforms import audio, image, points, text, video

_FITS: Mapping[str, Callable[[Any, Any, Any], tuple[np.ndarray, int]]] = MappingProxyType(
    {"audio": audio.fit, "image": image.fit, "points": points.fit, "text": text.fit, "video": video.fit}
)


def prepare(
    members: Mapping[str, bytes | memoryview], config: DataConfig, rng: np.random.Generator | None = None
) -> Sample:
    """Return the configured modalities that the sample has, with its label and weight.

    `members` maps extensions to bytes. With a generator the sample is one for training: transformed at random, some
    modalities hidden. Every draw comes from it, so equal generators give equal samples. Raises ValueError, which names
    the member and says what is wrong with it.
    """
    extensions = _extension_of_each_modality(members)
    arrays, lengths = {}, {}
    for modality in _shown(sorted(extensions.keys() & config.modalities().keys()), config.modality_dropout, rng):
        extension = extensions[modality]
        try:
            arrays[modality], lengths[modality] = _FITS[modality](
                members[extension], config.modalities()[modality], rng
            )
        except ValueError as error:
            raise ValueError(f".{extension}: {error}") from error
    label, weight = _label_and_weight(members)
    return Sample(arrays, lengths, label, weight)


def _extension_of_each_modality(members: Mapping[str, bytes | memoryview]) -> dict[str, str]:
    extensions: dict[str, str] = {}
    for extension in sorted(members):
        modality = member_names.modality_of(extension)
        if modality is None:
            continue
        if modality in extensions:
            raise ValueError(f"sample has two members for {modality}: .{extensions[modality]} and .{extension}")
        extensions[modality] = extension
    return extensions


def _shown(present: list[str], dropout: Mapping[str, float], rng: np.random.Generator | None) -> list[str]:
    """Return the modalities that training does not hide; where all would be hidden, one at random stays."""
    if rng is None or not present or not any(dropout.values()):
        return present
    draws = rng.random(len(present))
    shown = [modality for modality, draw in zip(present, draws, strict=True) if draw >= dropout.get(modality, 0)]
    return shown or [present[rng.integers(len(present))]]


def _label_and_weight(members: Mapping[str, bytes | memoryview]) -> tuple[int, float]:
    """Return the label (NO_LABEL where there is none) and the weight (1 where none is given)."""
    label, weight = NO_LABEL, 1.0
    try:
        if member_names.LABEL in members:
            label = int(bytes(members[member_names.LABEL]))
        if member_names.RECORD in members:
            record = json.loads(bytes(members[member_names.RECORD]))
            weight = float(record.get("weight", 1.0)) if isinstance(record, dict) else 1.0
    except (ValueError, TypeError) as error:
        raise ValueError(f"label or weight is not a number ({error})") from error
    if label < NO_LABEL or not (0 <= weight < float("inf")):
        raise ValueError(f"label {label} or weight {weight} is out of range")
    return label, weight
