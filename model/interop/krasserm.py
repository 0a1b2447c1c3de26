"""Networks of krasserm's perceiver-io: its image classifier, text classifier and masked language model.

Its config.json, as `save_pretrained` of its Hugging Face classes writes it, says the sizes; without those classes the
same content is `{"model_type": ..., "model_config": dataclasses.asdict(model.config)}`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_files import picture
from model.interop.loading import filled, refuse_endless
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.pixel_range import PixelRange
from model.modalities.text import TextInput
from model.outputs.label import LabelOutput
from model.outputs.output import Output
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

IMAGE, TEXT, MASKED = (
    "perceiver-io-image-classifier",
    "perceiver-io-text-classifier",
    "perceiver-io-masked-language-model",
)
KINDS = (IMAGE, TEXT, MASKED)
# Its Hugging Face classes hold the network under this name; its own state dict is without.
_PREFIX = "backend_model."
_LINEAR = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
# A buffer that follows from the sizes.
_COMPUTED = "0.input_adapter.position_encoding.position_encoding"
Pairs = Iterator[tuple[str, str]]


def from_krasserm(
    config: Mapping[str, Any], state: Mapping[str, Tensor], preprocessor: Mapping[str, Any] | None = None
) -> tuple[Perceiver, tuple[str, ...]]:
    """Return the network of a config.json and its tensors, and notes on what is not the same; ValueError otherwise."""
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"model_type: expected one of {', '.join(KINDS)}, got {kind!r}")
    values, notes = dict(config.get("model_config") or {}), []
    if not values:
        raise ValueError("model_config: expected the sizes of the network, as save_pretrained writes them")
    encoder, decoder = dict(values["encoder"]), dict(values["decoder"])
    pixel_range: PixelRange = "centred"
    if kind == IMAGE and preprocessor is not None:
        pixel_range = picture(preprocessor)[1]
    elif kind == IMAGE:
        notes.append("no preprocessor_config.json: pixels are taken to be scaled to [-1, 1]")
    ours = _config(kind, values, encoder, decoder, pixel_range)
    refuse_endless(ours, state, "num_self_attention_layers_per_block")
    names = dict(_names(kind, ours, decoder))
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    # Ours is computed anew.
    tensors.pop(_COMPUTED, None)
    return filled(ours, names, tensors, whose="perceiver-io's state dict"), tuple(notes)


def _config(
    kind: str,
    values: Mapping[str, Any],
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    pixel_range: PixelRange,
) -> PerceiverConfig:
    num_cross, num_blocks = encoder["num_cross_attention_layers"], encoder["num_self_attention_blocks"]
    if not 1 <= num_cross <= num_blocks:
        raise ValueError(
            f"num_cross_attention_layers: {num_cross} of them for {num_blocks} blocks; expected from 1 to the "
            "number of blocks, before the first of which they come"
        )
    inputs, outputs, query_width = _ends(kind, encoder, decoder, pixel_range)
    # Each of the three kinds reads one input.
    (only,) = inputs.values()
    width = values["num_latent_channels"]
    # perceiver-io's own default: as wide as what asks. Its image classifier alone takes the width of the tokens.
    cross_default = only.token_width if kind == IMAGE else width
    return PerceiverConfig(
        inputs=inputs,
        outputs=outputs,
        decoder=DecoderConfig(
            cross_attend=_attention(decoder, "cross", query_width), query_residual=decoder["cross_attention_residual"]
        ),
        num_latents=values["num_latents"],
        latent_width=width,
        num_cross_attends=num_cross,
        num_blocks=num_blocks,
        layers_per_block=encoder["num_self_attention_layers_per_block"],
        # Of one, or one a block, both arrangements are the same network.
        arrangement="first_blocks" if 1 < num_cross < num_blocks else "interleaved",
        share_cross_attends="all" if encoder["first_cross_attention_layer_shared"] else True,
        share_blocks=True if encoder["first_self_attention_block_shared"] else "after_first",
        cross_attend=_attention(encoder, "cross", cross_default),
        self_attend=_attention(encoder, "self", width),
        # What nn.GELU computes by default.
        gelu="erf",
    )


def _attention(values: Mapping[str, Any], which: str, default: int) -> AttentionConfig:
    qk_width = values[f"num_{which}_attention_qk_channels"] or default
    return AttentionConfig(
        num_heads=values[f"num_{which}_attention_heads"],
        qk_width=qk_width,
        value_width=values[f"num_{which}_attention_v_channels"] or qk_width,
        mlp_ratio=values[f"{which}_attention_widening_factor"],
    )


def _ends(
    kind: str, encoder: Mapping[str, Any], decoder: Mapping[str, Any], pixel_range: PixelRange
) -> tuple[dict[str, Input], dict[str, Output], int]:
    """Return the input, the output, and the channels of its queries."""
    if kind == IMAGE:
        height, width, channels = encoder["image_shape"]
        positions = PositionsConfig(num_bands=encoder["num_frequency_bands"])
        image = ImageInput(
            height=height, width=width, num_channels=channels, pixel_range=pixel_range, positions=positions
        )
        inputs: dict[str, Input] = {"image": image}
    else:
        embedding = encoder["num_input_channels"]
        text = TextInput(max_tokens=encoder["max_seq_len"], vocabulary=encoder["vocab_size"], embedding_width=embedding)
        inputs = {"text": text}
    if kind == MASKED:
        _check_masked(encoder, decoder)
        return inputs, {"text": TextOutput()}, encoder["num_input_channels"]
    if decoder["num_output_queries"] != 1:
        raise ValueError(f"num_output_queries: expected 1 of a classifier, got {decoder['num_output_queries']}")
    query_width = decoder["num_output_query_channels"]
    label = LabelOutput(num_classes=decoder["num_classes"], pooling="query", query_width=query_width)
    return inputs, {"label": label}, query_width


def _check_masked(encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    """Raise ValueError where a masked language model is not the one that this network can be."""
    for name in ("vocab_size", "max_seq_len"):
        if encoder[name] != decoder[name]:
            raise ValueError(
                f"{name}: expected the same of encoder and decoder, got {encoder[name]} and {decoder[name]}"
            )
    if decoder["num_output_query_channels"] is not None:
        raise ValueError(
            "num_output_query_channels: expected none, with which words are found by their embeddings, got "
            f"{decoder['num_output_query_channels']}; a linear layer in its place cannot be imported"
        )


def _names(kind: str, config: PerceiverConfig, decoder: Mapping[str, Any]) -> Pairs:
    """Yield the name of every tensor here and there."""
    yield "encoder.latents.weight", "0.latent_provider._query"
    for index in sorted({index for kind, index in config.schedule() if kind == "cross_attend"}):
        yield from _cross(f"encoder.cross_attends.{index}", f"0.cross_attn_{'n' if index else '1'}")
    for block in sorted({index for kind, index in config.schedule() if kind == "block"}):
        own = f"0.self_attn_{'n' if block else '1'}"
        for layer in range(config.layers_per_block):
            yield from _self(f"encoder.blocks.{block}.{layer}", f"{own}.{layer}")
    if kind != IMAGE:
        yield "inputs.adapters.text.embedding.weight", "0.input_adapter.txt_embedding.weight"
        yield "inputs.adapters.text.places.weight", "0.input_adapter.pos_embedding.weight"
    yield from _cross("decoder.cross_attend", "1.cross_attn", residual=decoder["cross_attention_residual"])
    answer = "text" if kind == MASKED else "label"
    yield f"decoder.queries.{answer}.table.weight", "1.output_query_provider._query"
    if kind == MASKED:
        yield "decoder.heads.text.bias", "1.output_adapter.bias"
    else:
        yield from _both("decoder.heads.label.logits", "1.output_adapter.linear")


def _cross(here: str, there: str, *, residual: bool = True) -> Pairs:
    attention = f"{there}.0.module" if residual else f"{there}.0"
    yield from _both(f"{here}.norm_query", f"{attention}.q_norm")
    yield from _both(f"{here}.norm_tokens", f"{attention}.kv_norm")
    yield from _rest(here, attention, f"{there}.1.module")


def _self(here: str, there: str) -> Pairs:
    yield from _both(f"{here}.norm_attention", f"{there}.0.module.norm")
    yield from _rest(here, f"{there}.0.module", f"{there}.1.module")


def _rest(here: str, attention: str, mlp: str) -> Pairs:
    for own, other in _LINEAR.items():
        yield from _both(f"{here}.attention.{own}", f"{attention}.attention.{other}")
    for own, number in (("norm_mlp", 0), ("mlp.widen", 1), ("mlp.narrow", 3)):
        yield from _both(f"{here}.{own}", f"{mlp}.{number}")


def _both(here: str, there: str) -> Pairs:
    """Yield the names of a weight and of its bias."""
    yield f"{here}.weight", f"{there}.weight"
    yield f"{here}.bias", f"{there}.bias"
