"""Networks of lucidrains' perceiver-pytorch: Perceiver, PerceiverIO and PerceiverLM, told apart by their tensors.

A state dict says neither heads nor frequencies: config.json beside it holds the arguments of the constructor, and
`input_shape`, the lengths of the input's axes without its channels. The queries that PerceiverIO is given when it is
called are a tensor `queries` beside its weights.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from model.checks import check_values
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_files import picture
from model.interop.loading import filled
from model.interop.lucidrains_tensors import fourier_as_here, kind_and_tensors, without_ties
from model.modalities.array import ArrayInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.pixel_range import PixelRange
from model.modalities.text import TextInput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.output import Output
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

# The constructors' own defaults.
_DEFAULTS: dict[str, Any] = {
    "num_latents": 512,
    "latent_dim": 512,
    "cross_heads": 1,
    "latent_heads": 8,
    "cross_dim_head": 64,
    "latent_dim_head": 64,
    "input_channels": 3,
    "input_axis": 2,
    "num_classes": 1_000,
    "self_per_cross_attn": 1,
}
# Inverted attention and another base leave no trace among the tensors: they would load, and the network would answer
# something else.
_REFUSED = {
    "inverted_cross_attn": "attention weights that add up to 1 over the latents",
    "attn_residual": "a mean over what earlier layers gave",
    "freq_base": "frequencies that are spaced logarithmically",
}
# Fixed in its code, which passes no other. With the gate a layer's MLP has 12 D^2 weights, where the papers' has 2 D^2.
_MLP_RATIO = 4
Pairs = Iterator[tuple[str, str]]
_Found = tuple[PerceiverConfig, dict[str, str], list[str]]
"""The network, the name of each tensor there by its name here, and notes."""


def from_lucidrains(
    config: Mapping[str, Any], state: Mapping[str, Tensor], preprocessor: Mapping[str, Any] | None = None
) -> tuple[Perceiver, tuple[str, ...]]:
    """Return the network of a constructor's arguments and a state dict, and notes; ValueError for what cannot be one.

    A preprocessor_config.json says what becomes of pixels before.
    """
    values = _DEFAULTS | dict(config)
    for key, what in _REFUSED.items():
        given = values.get(key)
        if any(given) if isinstance(given, list) else given:
            raise ValueError(f"{key}: expected none, since this network has not {what}; got {given!r:.40}")
    check_values(values, _DEFAULTS)
    _check_sizes(values, "depth")
    # Before anything lists the layers.
    for key in ("depth", "self_per_cross_attn"):
        if values[key] > len(state):
            raise ValueError(f"{key}: {values[key]}, with {len(state)} tensors in all")
    kind, tensors = kind_and_tensors(state)
    if kind == "Perceiver":
        ours, names, notes = _perceiver(values, preprocessor)
        tensors = fourier_as_here(tensors, _num_channels(values), len(values["input_shape"]), _bands(values))
    else:
        ours, names, notes = _perceiver_io(kind, values, tensors)
    if values.get("weight_tie_layers", False):
        tensors = without_ties(tensors, last=1 if kind == "Perceiver" else 0)
    network = filled(ours, names, tensors, whose="perceiver-pytorch's state dict")
    dropped = [key for key in ("attn_dropout", "ff_dropout", "seq_dropout_prob") if values.get(key)]
    if dropped:
        notes.append(f"{', '.join(dropped)}: not taken, since this network drops other values (model.dropout)")
    return network, tuple(notes)


def _perceiver(values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> _Found:
    if not values.get("final_classifier_head", True):
        raise ValueError("final_classifier_head: expected true, since a network without it has no answer; got false")
    is_tied, depth = bool(values.get("weight_tie_layers", False)), values["depth"]
    modality, notes = _input(values, preprocessor)
    config = PerceiverConfig(
        inputs=modality,
        # Its classifier normalises the mean of the latents; that of the papers does not.
        outputs={"label": LabelOutput(num_classes=values["num_classes"], norm_mean=True)},
        num_cross_attends=depth,
        num_blocks=depth,
        layers_per_block=values["self_per_cross_attn"],
        share_cross_attends=is_tied,
        # Its cache is used from the second layer on: the first cross-attend and the first block keep weights of their
        # own.
        share_blocks="after_first" if is_tied else False,
        **_sizes(values),
    )
    return config, dict(_names_of_perceiver(config)), notes


def _perceiver_io(kind: str, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> _Found:
    inputs, outputs, names = _words(values) if kind == "PerceiverLM" else _asked(values, tensors)
    config = PerceiverConfig(
        inputs=inputs,
        outputs=outputs,
        num_cross_attends=1,
        num_blocks=values["depth"],
        layers_per_block=1,
        # Unlike Perceiver's, the cache of PerceiverIO begins with the first layer: all of them are one.
        share_blocks=bool(values.get("weight_tie_layers", False)),
        decoder=DecoderConfig(_attention(values, "cross"), has_mlp=bool(values.get("decoder_ff", False))),
        **_sizes(values),
    )
    return config, dict(_names_of_io(config)) | names, []


def _sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all of its networks have in common."""
    return {
        "num_latents": values["num_latents"],
        "latent_width": values["latent_dim"],
        "cross_attend": _attention(values, "cross"),
        "self_attend": _attention(values, "latent"),
        # What functional.gelu computes by default. The papers' networks have the tanh form, up to 5e-4 away from it.
        "gelu": "erf",
        "mlp": "geglu",
    }


def _attention(values: Mapping[str, Any], which: str) -> AttentionConfig:
    heads = values[f"{which}_heads"]
    width = heads * values[f"{which}_dim_head"]
    return AttentionConfig(heads, qk_width=width, value_width=width, mlp_ratio=_MLP_RATIO, qkv_bias=False)


def _input(values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> tuple[dict[str, Input], list[str]]:
    """Return an image where there are two axes, else an array."""
    shape, channels = _shape(values), _num_channels(values)
    if len(shape) != values["input_axis"]:
        raise ValueError(f"input_shape: expected {values['input_axis']} axes, as input_axis says, got {shape}")
    positions = PositionsConfig(kind="none")
    # Its frequencies reach max_freq / 2, with one max_freq for all axes: it is what max_resolution is here.
    if num_bands := _bands(values):
        positions = PositionsConfig(num_bands=num_bands, max_resolution=(_max_freq(values),) * len(shape))
    if len(shape) != 2:
        return {"array": ArrayInput(shape=(*shape, channels), positions=positions)}, []
    pixel_range: PixelRange = "unit"
    notes = []
    if preprocessor is not None:
        pixel_range = picture(preprocessor)[1]
    else:
        notes.append("no preprocessor_config.json: pixels are taken to be scaled to [0, 1]")
    height, width = shape
    return {
        "image": ImageInput(
            height=height, width=width, num_channels=channels, pixel_range=pixel_range, positions=positions
        )
    }, notes


def _num_channels(values: Mapping[str, Any]) -> int:
    return int(values["input_channels"])


def _bands(values: Mapping[str, Any]) -> int:
    """Return the frequencies of each axis; 0 where there are no positions."""
    if not values.get("fourier_encode_data", True):
        return 0
    _check_sizes(values, "num_freq_bands")
    return int(values["num_freq_bands"])


def _max_freq(values: Mapping[str, Any]) -> int:
    given = values["max_freq"]
    if not isinstance(given, int | float) or given != round(given) or given < 2:
        raise ValueError(f"max_freq: expected a whole number from 2, got {given!r:.40}")
    return round(given)


def _shape(values: Mapping[str, Any]) -> tuple[int, ...]:
    shape = values.get("input_shape")
    if not isinstance(shape, list | tuple) or not shape:
        raise ValueError(
            "input_shape: expected the lengths of the input's axes without its channels, such as [224, 224], which a "
            f"state dict does not say; got {shape!r:.40}"
        )
    check_values({"input_shape": shape}, {"input_shape": (1,) * len(shape)})
    return tuple(shape)


def _words(values: Mapping[str, Any]) -> tuple[dict[str, Input], dict[str, Output], dict[str, str]]:
    """Return the input, the answer and their tensors' names of a language model."""
    _check_sizes(values, "num_tokens", "max_seq_len", "dim")
    text = TextInput(max_tokens=values["max_seq_len"], vocabulary=values["num_tokens"], embedding_width=values["dim"])
    names = {
        "inputs.adapters.text.embedding.weight": "token_emb.weight",
        "inputs.adapters.text.places.weight": "pos_emb.weight",
        **dict(_both("decoder.heads.text", "to_logits")),
    }
    # PerceiverLM passes the embedded text as its own queries, and has a layer of its own for the logits.
    return {"text": text}, {"text": TextOutput(queries_from="tokens", is_tied=False)}, names


def _asked(
    values: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Input], dict[str, Output], dict[str, str]]:
    """Return the input, the answer and their tensors' names of a network that is asked by given queries."""
    _check_sizes(values, "dim", "queries_dim")
    if not values.get("logits_dim"):
        raise ValueError("logits_dim: expected the width of the answer, since a network without it has none; got none")
    _check_sizes(values, "logits_dim")
    if "queries" not in tensors or tensors["queries"].dim() != 2:
        raise ValueError(
            "expected the queries with which the network is called as a tensor `queries` of (queries, queries_dim) "
            "beside its weights, since it answers nothing else"
        )
    inputs: dict[str, Input] = {
        # PerceiverIO adds no positions: they are among the channels that its caller gives it.
        "array": ArrayInput(shape=(*_shape(values), values["dim"]), positions=PositionsConfig(kind="none"))
    }
    num_queries, width = len(tensors["queries"]), values["queries_dim"]
    # The file does not say what its queries mean. One can only be the answer for the sample as a whole.
    if num_queries == 1:
        label = LabelOutput(num_classes=values["logits_dim"], pooling="query", query_width=width)
        names = {
            "decoder.queries.label.table.weight": "queries",
            **dict(_both("decoder.heads.label.logits", "to_logits")),
        }
        return inputs, {"label": label}, names
    rows = PositionsConfig(kind="learned", learned_width=width)
    grid = GridOutput(shape=(num_queries,), num_channels=values["logits_dim"], positions=rows)
    names = {
        "decoder.queries.values.table.weight": "queries",
        **dict(_both("decoder.heads.values.values", "to_logits")),
    }
    return inputs, {"values": grid}, names


def _check_sizes(values: Mapping[str, Any], *keys: str) -> None:
    check_values({**dict.fromkeys(keys), **values}, dict.fromkeys(keys, 1))


def _names_of_perceiver(config: PerceiverConfig) -> Pairs:
    yield "encoder.latents.weight", "latents"
    modules = {
        kind: 1 + max(index for of, index in config.schedule() if of == kind) for kind in ("cross_attend", "block")
    }
    for index in range(modules["cross_attend"]):
        yield from _cross(f"encoder.cross_attends.{index}", f"layers.{index}.cross_attn")
        yield from _mlp(f"encoder.cross_attends.{index}", f"layers.{index}.cross_ff")
    for index in range(modules["block"]):
        for layer in range(config.layers_per_block):
            yield from _self(f"encoder.blocks.{index}.{layer}", f"layers.{index}.self_attns.{layer}")
    yield from _both("decoder.means.label.norm", "to_logits.1")
    yield from _both("decoder.means.label.logits", "to_logits.2")


def _names_of_io(config: PerceiverConfig) -> Pairs:
    yield "encoder.latents.weight", "latents"
    yield from _cross("encoder.cross_attends.0", "cross_attend_block.cross_attn")
    yield from _mlp("encoder.cross_attends.0", "cross_attend_block.cross_ff")
    for index in range(1 if config.share_blocks else config.num_blocks):
        yield from _self(f"encoder.blocks.{index}.0", f"layers.{index}.self_attns.0")
    yield from _cross("decoder.cross_attend", "decoder_cross_attn")
    if config.decoder.has_mlp:
        yield from _mlp("decoder.cross_attend", "decoder_ff")


def _self(here: str, there: str) -> Pairs:
    yield from _both(f"{here}.norm_attention", f"{there}.0.norm")
    yield from _attended(here, f"{there}.0")
    yield from _mlp(here, f"{there}.1")


def _cross(here: str, there: str) -> Pairs:
    yield from _both(f"{here}.norm_query", f"{there}.norm")
    yield from _both(f"{here}.norm_tokens", f"{there}.norm_context")
    yield from _attended(here, there)


def _attended(here: str, there: str) -> Pairs:
    for own, other in {"query": "to_q", "key": "to_k", "value": "to_v"}.items():
        yield f"{here}.attention.{own}.weight", f"{there}.fn.{other}.weight"
    yield from _both(f"{here}.attention.output", f"{there}.fn.to_out")


def _mlp(here: str, there: str) -> Pairs:
    yield from _both(f"{here}.norm_mlp", f"{there}.norm")
    for own, other in {"widen": "widen", "gate": "gate", "narrow": "2"}.items():
        yield from _both(f"{here}.mlp.{own}", f"{there}.fn.net.{other}")


def _both(here: str, there: str) -> Pairs:
    """Yield the names of a weight and of its bias."""
    yield f"{here}.weight", f"{there}.weight"
    yield f"{here}.bias", f"{there}.bias"
