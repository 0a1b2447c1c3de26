"""The members of one sample to arrays of the config's shapes: decode, transform, hide modalities."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from data_shards import members as member_names
from data_shards.batch import NO_LABEL, Sample
from data_shards.config import DataConfig, FlowConfig
from data_shards.transforms import audio, flow, image, points, text, video
from data_shards.transforms.masking import mask_words

_FITS: Mapping[str, Callable[[Any, Any, Any], tuple[np.ndarray, int]]] = MappingProxyType(
    {"audio": audio.fit, "image": image.fit, "points": points.fit, "text": text.fit, "video": video.fit}
)


class BadMemberError(ValueError):
    """A member that cannot be decoded."""

    def __init__(self, modality: str, reason: str) -> None:
        super().__init__(reason)
        self.modality = modality


def prepare(
    members: Mapping[str, bytes | memoryview], config: DataConfig, rng: np.random.Generator | None = None
) -> Sample:
    """Return the configured modalities that the sample has, with its label and weight.

    `members` maps extensions to bytes. With a generator the sample is one for training: transformed at random, some
    modalities hidden. Every draw comes from it, so equal generators give equal samples. Raises ValueError, which names
    the member and says what is wrong with it.
    """
    extensions = _extension_of_each_modality(members)
    arrays: dict[str, np.ndarray] = {}
    targets: dict[str, np.ndarray] = {}
    lengths = {}
    for modality in _shown(sorted(extensions.keys() & config.modalities().keys()), config.modality_dropout, rng):
        section, extension = config.modalities()[modality], extensions[modality]
        try:
            if isinstance(section, FlowConfig):
                # Of several members, which its errors name.
                arrays[modality], targets[modality] = flow.fit(members, section, rng)
                lengths[modality] = len(arrays[modality])
            else:
                arrays[modality], lengths[modality] = _FITS[modality](members[extension], section, rng)
        except ValueError as error:
            where = "" if isinstance(section, FlowConfig) else f".{extension}: "
            raise BadMemberError(modality, f"{where}{error}") from error
    if "text" in arrays and config.text is not None and config.text.masking is not None:
        arrays["text"], targets["text"] = mask_words(arrays["text"], lengths["text"], config.text.masking, rng)
    weight, labels, named_labels = _record(members, config.labels)
    return Sample(arrays, lengths, _label(members), weight, labels, named_labels, targets)


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


def _label(members: Mapping[str, bytes | memoryview]) -> int:
    """Return the label, NO_LABEL where there is none."""
    if member_names.LABEL not in members:
        return NO_LABEL
    try:
        label = int(bytes(members[member_names.LABEL]))
    except ValueError as error:
        raise ValueError(f".{member_names.LABEL}: label is not a number ({error})") from error
    if label < NO_LABEL:
        raise ValueError(f".{member_names.LABEL}: label {label} is out of range")
    return label


def _record(
    members: Mapping[str, bytes | memoryview], names: tuple[str, ...]
) -> tuple[float, tuple[int, ...], dict[str, int]]:
    """Return weight (1 where none is given), labels (none where the sample does not have several), and named ones."""
    if member_names.RECORD not in members:
        return 1.0, (), {}
    try:
        record = json.loads(bytes(members[member_names.RECORD]))
        # Tars of others have records of their own, about other things.
        fields = record if isinstance(record, dict) else {}
        weight, labels = float(fields.get("weight", 1.0)), tuple(int(label) for label in fields.get("labels", ()))
        given = fields.get("named_labels", {}) if names else {}
        named = {name: int(given[name]) for name in names if name in given}
    except (ValueError, TypeError) as error:
        raise ValueError(f".{member_names.RECORD}: weight or labels are not numbers ({error})") from error
    if not 0 <= weight < float("inf") or min((*labels, *named.values()), default=0) < 0:
        shown = f"weight {weight} or labels {[*labels, *named.values()]}"
        raise ValueError(f".{member_names.RECORD}: {shown} are out of range")
    return weight, labels, named
