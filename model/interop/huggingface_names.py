"""The names of a network's tensors here and in Hugging Face's Perceiver."""

from collections.abc import Iterator

from model.config.perceiver import PerceiverConfig

# Of one layer, here and there.
_ATTENTION = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "norm_mlp": "layernorm",
    "mlp.widen": "mlp.dense1",
    "mlp.narrow": "mlp.dense2",
}
_CROSS = {"norm_query": "attention.self.layernorm1", "norm_tokens": "attention.self.layernorm2", **_ATTENTION}
_SELF = {"norm_attention": "attention.self.layernorm1", **_ATTENTION}

_TABLE = "output_position_encodings.position_embeddings"
# Hugging Face calls a clip an image.
_MODALITIES = {"audio": "audio", "label": "label", "video": "image"}

Pairs = Iterator[tuple[str, str]]


def tensor_names(config: PerceiverConfig, architecture: str) -> dict[str, str]:
    """Return Hugging Face's name of every tensor of a network, by its name here."""
    outputs = {
        "PerceiverForMaskedLM": _text,
        "PerceiverForSequenceClassification": _sequence,
        "PerceiverForImageClassificationFourier": _classifier,
        "PerceiverForImageClassificationLearned": _learned,
        "PerceiverForImageClassificationConvProcessing": _conv,
        "PerceiverForOpticalFlow": _flow,
        "PerceiverForMultimodalAutoencoding": _multimodal,
    }
    return dict([*_encoder(config), *outputs[architecture]()])


def _layer(here: str, there: str, parts: dict[str, str]) -> Pairs:
    for part, counterpart in parts.items():
        yield from _both(f"{here}.{part}", f"{there}.{counterpart}")


def _both(here: str, there: str) -> Pairs:
    """Yield the names of a weight and of its bias."""
    yield f"{here}.weight", f"{there}.weight"
    yield f"{here}.bias", f"{there}.bias"


def _encoder(config: PerceiverConfig) -> Pairs:
    yield "encoder.latents.weight", "perceiver.embeddings.latents"
    yield from _layer("encoder.cross_attends.0", "perceiver.encoder.cross_attention", _CROSS)
    # Of one block: all blocks of Hugging Face's models share their weights.
    for layer in range(config.layers_per_block):
        yield from _layer(f"encoder.blocks.0.{layer}", f"perceiver.encoder.self_attends.{layer}", _SELF)


def _classifier() -> Pairs:
    decoder = "perceiver.decoder.decoder"
    yield "decoder.queries.label.table.weight", f"{decoder}.{_TABLE}"
    yield from _layer("decoder.cross_attend", f"{decoder}.decoding_cross_attention", _CROSS)
    yield from _both("decoder.heads.label.logits", f"{decoder}.final_layer")


def _learned() -> Pairs:
    yield from _classifier()
    here, there = "inputs.adapters.image", "perceiver.input_preprocessor"
    yield from _both(f"{here}.project", f"{there}.convnet_1x1")
    yield f"{here}.positions.learned.weight", f"{there}.position_embeddings.position_embeddings"
    yield from _both(f"{here}.positions.project", f"{there}.positions_projection")


def _conv() -> Pairs:
    yield from _classifier()
    here, there = "inputs.adapters.image.stem", "perceiver.input_preprocessor.convnet"
    yield f"{here}.convolution.weight", f"{there}.conv.weight"
    yield from _both(f"{here}.norm", f"{there}.batchnorm")
    for statistic in ("running_mean", "running_var", "num_batches_tracked"):
        yield f"{here}.norm.{statistic}", f"{there}.batchnorm.{statistic}"


def _words() -> Pairs:
    here, there = "inputs.adapters.text", "perceiver.input_preprocessor"
    yield f"{here}.embedding.weight", f"{there}.embeddings.weight"
    yield f"{here}.places.weight", f"{there}.position_embeddings.weight"


def _sequence() -> Pairs:
    yield from _classifier()
    yield from _words()


def _text() -> Pairs:
    yield from _words()
    yield "decoder.queries.text.table.weight", f"perceiver.decoder.{_TABLE}"
    yield from _layer("decoder.cross_attend", "perceiver.decoder.decoding_cross_attention", _CROSS)
    # The one name without the prefix: this module belongs to the model with a language head, not to its Perceiver.
    yield "decoder.heads.text.bias", "embedding_decoder.bias"


def _flow() -> Pairs:
    decoder = "perceiver.decoder.decoder"
    yield from _both("inputs.adapters.flow.project", "perceiver.input_preprocessor.conv_after_patches")
    yield from _layer("decoder.cross_attend", f"{decoder}.decoding_cross_attention", _CROSS)
    yield from _both("decoder.heads.flow.values", f"{decoder}.final_layer")


def _multimodal() -> Pairs:
    decoder, label = "perceiver.decoder", "perceiver.decoder.modalities.label.decoder"
    yield "decoder.queries.label.table.weight", f"{label}.{_TABLE}"
    yield from _layer("decoder.cross_attend", f"{decoder}.decoder.decoding_cross_attention", _CROSS)
    yield from _both("decoder.project", f"{decoder}.decoder.final_layer")
    for here, there in _MODALITIES.items():
        yield f"inputs.paddings.{here}.weight", f"perceiver.input_preprocessor.padding.{there}"
        yield f"inputs.mask_tokens.{here}.weight", f"perceiver.input_preprocessor.mask.{there}"
        yield f"decoder.paddings.{here}.weight", f"{decoder}.padding.{there}"
        values = "logits" if here == "label" else "values"
        yield from _both(
            f"decoder.heads.{here}.{values}", f"perceiver.output_postprocessor.modalities.{there}.classifier"
        )
