"""The members of one sample to arrays of the config's shapes: decode, transform, hide modalities."""

from collections.abc import Callable, Container, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from data_shards.config import DataConfig, FlowConfig
from data_shards.format import members as member_names
from data_shards.format.annotations import OWN, Records, notes
from data_shards.loading.batch import Sample
from data_shards.loading.quarantine import one_line
from data_shards.modalities.transforms import audio, flow, image, points, text, video
from data_shards.modalities.transforms.masking import mask_words

_FITS: Mapping[str, Callable[[Any, Any, Any], tuple[np.ndarray, int]]] = MappingProxyType(
    {"audio": audio.fit, "image": image.fit, "points": points.fit, "text": text.fit, "video": video.fit}
)


class BadMemberError(ValueError):
    """A member that cannot be decoded."""

    def __init__(self, modality: str, reason: str) -> None:
        super().__init__(reason)
        self.modality = modality


def prepare(
    members: Mapping[str, bytes | memoryview],
    config: DataConfig,
    rng: np.random.Generator | None = None,
    *,
    records: Records = OWN,
) -> Sample:
    """Return the configured modalities that the sample has, with its label and weight.

    `members` maps extensions to bytes. With a generator the sample is one for training: transformed at random, some
    modalities hidden. Every draw comes from it, so equal generators give equal samples. `records` says what is taken
    of a record. Raises ValueError, which names the member and says what is wrong with it.
    """
    extensions = _extension_of_each(config.modalities(), members)
    arrays: dict[str, np.ndarray] = {}
    targets: dict[str, np.ndarray] = {}
    lengths = {}
    for modality in _shown(sorted(extensions), config.modality_dropout, rng):
        section, extension = config.modalities()[modality], extensions[modality]
        try:
            if isinstance(section, FlowConfig):
                # Of several members, which its errors name.
                arrays[modality], targets[modality] = flow.fit(members, section, rng)
                lengths[modality] = len(arrays[modality])
            else:
                arrays[modality], lengths[modality] = _FITS[modality](members[extension], section, rng)
        # Any: a decoder that meets bytes which nobody thought of may raise whatever it likes.
        except Exception as error:
            where = "" if isinstance(section, FlowConfig) else f".{extension}: "
            raise BadMemberError(modality, f"{where}{one_line(error)}") from error
    if "text" in arrays and config.text is not None and config.text.masking is not None:
        arrays["text"], targets["text"] = mask_words(arrays["text"], lengths["text"], config.text.masking, rng)
    known = notes(members, records, config.labels)
    return Sample(arrays, lengths, known.label, known.weight, known.labels, known.named_labels, targets)


def is_absent(extension: str, content: bytes | memoryview) -> bool:
    """Return whether a member is none: a text of no length says nothing, and the rest of its sample is sound."""
    return not len(content) and member_names.modality_of(extension) == "text"


def _extension_of_each(wanted: Container[str], members: Mapping[str, bytes | memoryview]) -> dict[str, str]:
    """Return the member of each modality that is wanted; ValueError where there are two."""
    extensions: dict[str, str] = {}
    for extension in sorted(members):
        modality = member_names.modality_of(extension)
        if modality is None or modality not in wanted or is_absent(extension, members[extension]):
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
