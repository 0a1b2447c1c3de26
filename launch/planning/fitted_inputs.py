"""The section of an input, sized by samples that have it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_shards.building.inspection.spread_samples import Members
from data_shards.files.quoting import cut
from data_shards.modalities.fitting import longest
from data_shards.modalities.kinds.catalogue import BY_NAME, contents
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.modality import MAIN, Modality, select
from data_shards.modalities.transform_config import MaskingConfig
from model.modalities import catalogue as networks

MOST_TOKENS = 512
"""Of a text, where a tokenizer is given."""


def section_of(keys: Mapping[str, Any]) -> Modality:
    """Return the section with these keys, as they stand in YAML."""
    typed: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    if "masking" in typed:
        typed["masking"] = MaskingConfig(**typed["masking"])
    return BY_NAME[keys["modality"]](**typed)


def fitted(
    section: Modality, samples: Sequence[Members], suffixes: set[str], tokenizer: str
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the keys of a section of the first modality that reads the members, or why none does.

    A text is read as tokens where there is a tokenizer.
    """
    main: list[Any] = []
    for members in samples:
        try:
            main += [each.content for role, each in select(section, members).items() if role == MAIN]
        except ValueError:
            # Two members that fit: a bad sample, which the run will count.
            continue
    reasons: list[str] = []
    for kind in _kinds_of(section, suffixes):
        read = section.members if isinstance(section.members, str) else list(section.members)
        own: dict[str, Any] = {"members": read} if read else {}
        try:
            good = _decodable(kind, main)
            sizes = _tokenized(good, tokenizer) if tokenizer and kind is TextConfig else kind.fitted(good)
            keys = {"modality": kind().modality, **own, **sizes}
            problems = [sentence for _, sentence in section_of(keys).problems()]
        except ValueError as error:
            problems = [str(error)]
        if not problems and kind().modality in networks.BY_NAME:
            return keys, []
        reasons.append(f"{kind().modality}: {cut(problems[0]) if problems else 'no network reads it'}")
    return None, reasons


def _decodable(kind: type[Modality], main: Sequence[Any]) -> list[Any]:
    """Return the members that a modality can decode; ValueError where those are fewer than half."""
    good, fault = [], "no sample has it alone"
    for content in main:
        try:
            kind.decoded_shape(MAIN, content)
            good.append(content)
        except ValueError as error:
            # One of many is a bad sample, which the run will count.
            fault = str(error)
    if 2 * len(good) < len(main) or not good:
        raise ValueError(fault)
    return good


def _tokenized(texts: Sequence[Any], tokenizer: str) -> dict[str, Any]:
    """Return the keys of a text of tokens, as many as nine of ten texts have at most."""
    tokens = TextConfig(tokenizer=tokenizer).tokens
    lengths = [len(tokens.ids(bytes(text).decode())) for text in texts]
    return {"tokenizer": str(Path(tokenizer).absolute()), "num_tokens": longest(lengths, MOST_TOKENS, 16)}


def _kinds_of(section: Modality, suffixes: set[str]) -> list[type[Modality]]:
    """Return the modality of the section, and then others that read such members: an array may be no cloud."""
    last = {suffix.rpartition(".")[2] for suffix in suffixes}
    first = BY_NAME[section.modality]
    return [first, *(kind for kind in contents() if kind is not first and last <= set(kind.usual))]
