"""What decides the numbers of a network's answers, and the keys in which another network computes something else.

    configuration --> facts: steps, widths, inputs, queries --> equal: one computation
                        '---- keys that decide a fact ---> differ: named, with both values

How the numbers are computed, and what a loss is worth, is no fact.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import MappingProxyType

from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.output import Output

_OF_TRAINING = ("target", "loss_weight", "class_weights", "loss", "train_queries", "value_range")
"""Fields of an answer that change no number of a forward pass."""
_OF_ATTENTION = ("num_heads", "qk_width", "value_width", "mlp_ratio")
_ATTENTIONS = ("cross_attend", "self_attend", "decoder.cross_attend")
_KEYS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "steps": ("num_cross_attends", "num_blocks", "arrangement", "share_cross_attends", "share_blocks"),
        "latents": ("num_latents", "latent_width", "layers_per_block"),
        "tokens": ("inputs", "min_padding", "mask_tokens"),
        "query_width": ("outputs", "decoder.min_padding"),
        "cross_attend": tuple(f"cross_attend.{key}" for key in _OF_ATTENTION),
        "self_attend": tuple(f"self_attend.{key}" for key in _OF_ATTENTION),
        "decoder": tuple(f"decoder.cross_attend.{key}" for key in _OF_ATTENTION),
        "query_residual": ("decoder.query_residual",),
        "output_width": ("decoder.output_width",),
        **{key: tuple(f"{each}.{key}" for each in _ATTENTIONS) for key in ("qkv_bias", "qk_norm", "rotary")},
    }
)
"""The keys, or sections, that decide a fact of a computation; a fact that is not here has the name of its own."""


def differences(here: PerceiverConfig, there: PerceiverConfig) -> list[str]:
    """Return a phrase for each key that lets two networks compute something else; none where both compute the same."""
    facts_here, facts_there = _computation(here), _computation(there)
    facts = [name for name, fact in facts_here.items() if fact != facts_there[name]]
    mine, theirs = dict(_leaves(here)), dict(_leaves(there))
    scopes = tuple(f"{key}." for fact in facts for key in _KEYS_OF.get(fact, (fact,)))
    found: dict[str, str] = {}
    for key in (key for key in sorted(mine.keys() | theirs.keys()) if f"{key}.".startswith(scopes)):
        section, name, *rest = f"{key}.".split(".")
        if section in ("inputs", "outputs") and (name in getattr(here, section)) != (name in getattr(there, section)):
            # As a whole: none of its keys has a counterpart.
            where = "has no counterpart there" if name in getattr(here, section) else "is there alone"
            found[f"{section}.{name}"] = f"model.{section}.{name} {where}"
        elif mine.get(key) != theirs.get(key) and not _is_same(here, there, section, name, rest[0] if rest else ""):
            found[key] = f"model.{key} is {mine.get(key)}, there {theirs.get(key)}"
    return list(found.values()) or list(facts)


def _is_same(here: PerceiverConfig, there: PerceiverConfig, section: str, name: str, key: str) -> bool:
    """Return whether a key of an input or an output, of two values, is no difference of the computation."""
    if section == "outputs":
        # 0 stands for the width of a latent vector, which is compared as that of all queries.
        return key in _OF_TRAINING or (key == "query_width" and not getattr(here.outputs[name], key, 0))
    if section != "inputs":
        return False
    mine, theirs = here.inputs[name], there.inputs[name]
    # Channels that are not said are those of the shape; the range of an image's pixels has a file of its own.
    same = {"num_channels": mine.shape[-1:] == theirs.shape[-1:], "pixel_range": isinstance(mine, ImageInput)}
    return key == "values" or bool(same.get(key))


def _leaves(part: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted key, value) of every field of a configuration that is no configuration itself."""
    if is_dataclass(part):
        part = {each.name: getattr(part, each.name) for each in fields(part)}
    if not isinstance(part, Mapping):
        yield prefix.removesuffix("."), part
        return
    for name, value in part.items():
        yield from _leaves(value, f"{prefix}{name}.")


def _computation(config: PerceiverConfig) -> dict[str, object]:
    """Return what decides the numbers of the answers, by name."""
    cross, think, decode = config.cross_attend, config.self_attend, config.decoder
    return {
        "steps": config.schedule(),
        "latents": (config.num_latents, config.latent_width, config.layers_per_block),
        "tokens": (config.num_tokens, config.token_width, config.mask_tokens),
        "inputs": {name: _input_facts(modality) for name, modality in config.ordered_inputs.items()},
        "outputs": {name: _output_facts(output) for name, output in config.answers().items()},
        "query_width": config.decoder_width,
        "cross_attend": (cross.num_heads, cross.widths(config.token_width), cross.mlp_ratio),
        "self_attend": (think.num_heads, think.widths(config.latent_width), think.mlp_ratio),
        "decoder": (
            decode.cross_attend.num_heads,
            decode.cross_attend.widths(config.latent_width),
            decode.cross_attend.mlp_ratio,
        ),
        "decoder.has_mlp": decode.has_mlp,
        "query_residual": decode.query_residual,
        "output_width": decode.output_width,
        "gelu": config.gelu,
        "norm": config.norm,
        "mlp": config.mlp,
        "qkv_bias": (cross.qkv_bias, think.qkv_bias, decode.cross_attend.qkv_bias),
        "qk_norm": (cross.qk_norm, think.qk_norm, decode.cross_attend.qk_norm),
        "rotary": (cross.rotary, think.rotary),
    }


def _input_facts(modality: Input) -> tuple[object, ...]:
    positions = modality.token_positions
    facts: tuple[object, ...] = (modality.shape, modality.grid, modality.token_width)
    if not isinstance(modality, ImageInput):
        # The range of an image's pixels stands in a file of its own.
        facts += (getattr(modality, "pixel_range", ""),)
    return facts if positions is None else (*facts, *_position_facts(positions, modality.grid))


def _position_facts(positions: PositionsConfig, grid: Sequence[int]) -> tuple[object, ...]:
    if positions.kind == "fourier":
        return (positions.num_bands, tuple(positions.max_resolution or grid))
    return (positions.kind, positions.learned_width, positions.project_to)


def _output_facts(output: Output) -> dict[str, object]:
    """Return what an answer is computed from, without what its training alone asks for."""
    facts = {each.name: getattr(output, each.name) for each in fields(output) if each.name not in _OF_TRAINING}
    if isinstance(output, GridOutput):
        facts["positions"] = _position_facts(output.positions, output.shape)
    if isinstance(output, LabelOutput):
        # 0 stands for the width of a latent vector, which is compared as that of all queries.
        del facts["query_width"]
    return facts
