"""`--tiny`: a run of any configuration made so small that two steps and an evaluation take seconds on one core.

    perceiver train recipes/perceiver_imagenet data.shards=data/imagenet --run runs/try --tiny

It proves that shards and configuration fit each other, from the first sample to the evaluation. Inputs, answers,
transforms, optimizer and schedule keep their kinds; sizes and lengths are smaller. The number of classes stays: it is
that of the shards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from configs.run import RunConfig, load
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.modality import Modality
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.modalities.input import Input
from model.outputs.grid import CellsOutput

_LATENT_WIDTH, _WIDTH, _HEADS = 32, 16, 2
# The most that is left of a size, by its key.
_OF_RUN: Mapping[str, int] = MappingProxyType(
    {
        "data.lanes": 2,
        "data.window": 16,
        "data.num_threads": 1,
        "model.num_latents": 8,
        "model.latent_width": _LATENT_WIDTH,
        "model.num_cross_attends": 2,
        "model.num_blocks": 2,
        "model.layers_per_block": 1,
        "model.decoder.output_width": _WIDTH,
        "optimizer.warmup_steps": 1,
        "optimizer.flat_steps": 1,
        "optimizer.cooldown_steps": 1,
        "train.steps": 2,
        "train.global_batch": 8,
        "train.micro_batch": 4,
        "train.log_every_steps": 1,
        "train.evaluate_every_steps": 2,
    }
)
_OF_POSITIONS: Mapping[str, int] = MappingProxyType({"num_bands": 3, "learned_width": 8, "project_to": 8})
_OF_INPUT: Mapping[str, int] = MappingProxyType({"project_to": 8, "embedding_width": _WIDTH, "num_bands": 3})
_OF_OUTPUT: Mapping[str, int] = MappingProxyType({"query_width": _WIDTH, "width": _WIDTH, "train_queries": 4})
_CELLS: Mapping[str, int] = MappingProxyType(
    {"height": 8, "width": 12, "num_frames": 2, "num_points": 32, "num_bytes": 32, "num_tokens": 32}
)
"""Cells along an axis: a pixel, or what a token spans. Rows and columns differ, so that they cannot be mixed up."""
_RECORDING = 8
"""Patches of a recording, or frames of a spectrogram."""


def load_tiny(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the tiny run of a configuration; ValueError as for the whole one."""
    return load(path, [*tiny_overrides(load(path, overrides)), *overrides])


def tiny_overrides(config: RunConfig) -> list[str]:
    """Return key=value of everything that is smaller in the tiny run; what is typed after it counts."""
    found = {key: most for key, most in _OF_RUN.items() if _at(config, key) > most}
    values: dict[str, Any] = dict(found)
    if config.data.clips is not None:
        values["data.clips.num_test"] = min(config.data.clips.num_test, 2)
    if config.optimizer.decay_steps:
        values["optimizer.decay_steps"] = [1]
    if config.model.nested_latents:
        num_latents = values.get("model.num_latents", config.model.num_latents)
        # Two sizes, of which the last is that of the whole.
        values["model.nested_latents"] = [max(1, num_latents // 2), num_latents]
    for place in ("cross_attend", "self_attend", "decoder.cross_attend"):
        values |= _of_attention(f"model.{place}", _at(config.model, place))
    sections = {name: _smaller(section, config.model.input_named(name)) for name, section in config.data.inputs.items()}
    for name, section in sections.items():
        values |= _of_input(config, name, section)
    for name, output in config.model.outputs.items():
        values |= _limited(f"model.outputs.{name}", output, _OF_OUTPUT)
        if isinstance(output, CellsOutput) and output.shape:
            # The input's own, or that of what only the data have.
            target = output.target or name
            is_read = config.model.input_named(target) is not None
            values[f"model.outputs.{name}.shape"] = [] if is_read else list(sections[target].shape[:-1])
    if config.model.network is not None:
        # The keys of the Perceiver mean nothing to a plug-in's network; its own sizes are its own.
        values = {key: value for key, value in values.items() if not _is_of_perceiver(key)}
    return [f"{key}={value}" for key, value in values.items()]


def _is_of_perceiver(key: str) -> bool:
    section, name, *_ = key.split(".")
    return section == "model" and name not in ("inputs", "outputs")


def _of_attention(place: str, attention: AttentionConfig) -> dict[str, int]:
    widths = {f"{place}.{key}": _WIDTH for key in ("qk_width", "value_width") if getattr(attention, key)}
    # Heads divide the width of the tokens where no other is set, and that may be odd.
    heads = _HEADS if widths or place.endswith("self_attend") else 1
    return widths | {f"{place}.num_heads": min(attention.num_heads, heads)}


def _of_input(config: RunConfig, name: str, section: Modality) -> dict[str, Any]:
    """Return the sizes of an input: in the data, and in the network where its file repeats them."""
    before, read = config.data.inputs[name], config.model.input_named(name)
    changed = {key: value for key, value in vars(section).items() if value != getattr(before, key, value)}
    values = {f"data.inputs.{name}.{key}": value for key, value in changed.items()}
    if read is None:
        return values
    sizes = {key: size for key, size in section.sizes.items() if size != getattr(read, key)}
    # Ids are those of the tokenizer: a network may have more of them.
    values |= {f"model.inputs.{name}.{key}": size for key, size in sizes.items() if key != "vocabulary"}
    # What the data deliver is theirs: a plug-in may name it as ours name their positions.
    limits = {key: most for key, most in _OF_INPUT.items() if key not in section.sizes}
    return values | _limited(f"model.inputs.{name}", read, limits)


def _smaller(section: Modality, read: Input | None) -> Modality:
    """Return the section of an input with fewer cells along each axis."""
    sizes: dict[str, Any] = {}
    for key, most in _CELLS.items():
        if key in vars(section) and getattr(section, key) > (limit := most * _cell(read, key)):
            sizes[key] = limit
    # Of text one of the two has a meaning.
    sizes.pop("num_bytes" if getattr(section, "tokenizer", "") else "num_tokens", None)
    for key, side in (("test_height", "height"), ("test_width", "width")):
        if getattr(section, key, 0) and side in sizes:
            # Still larger than in training, so that there are tiles.
            sizes[key] = min(getattr(section, key), 2 * sizes[side])
    if isinstance(section, AudioConfig):
        sizes["num_samples"] = min(section.num_samples, _num_samples(section, read))
    return replace(section, **sizes)


def _num_samples(section: AudioConfig, read: Input | None) -> int:
    patch: int = getattr(read, "patch", 1)
    if section.log_mel is None:
        return _RECORDING * patch
    hop, window = (of(section.sample_rate) for of in (section.log_mel.hop_samples, section.log_mel.window_samples))
    return max(_RECORDING * patch * hop, -(-window // hop) * hop)


def _cell(read: Input | None, key: str) -> int:
    """Return the entries of an axis that one token spans."""
    if key == "num_frames":
        return int(getattr(read, "patch_frames", 1))
    # The convolution and its max-pool leave a quarter.
    stride = 4 if read is not None and read.has_stem else 1
    return stride * int(getattr(read, "patch", 1)) if key in ("height", "width") else 1


def _limited(place: str, part: object, most: Mapping[str, int]) -> dict[str, int]:
    """Return the keys of a part, and of its positions, that are above their limits."""
    found = {f"{place}.{key}": limit for key, limit in most.items() if getattr(part, key, 0) > limit}
    positions = getattr(part, "positions", None)
    if isinstance(positions, PositionsConfig):
        found |= _limited(f"{place}.positions", positions, _OF_POSITIONS)
    return found


def _at(part: Any, key: str) -> Any:  # noqa: ANN401  # whatever stands there
    for name in key.split("."):
        part = getattr(part, name)
    return part
