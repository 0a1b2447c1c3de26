"""DeepMind's released networks, from arrays under Haiku's names: masked language model and image classifiers.

DeepMind hands them out as pickles, which can hold any code and are not read here. Where Haiku is installed they become
arrays in three lines (docs/parity.md), one for each MODULE/NAME of its parameters and its state.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_config import config_from_hugging_face
from model.interop.huggingface_names import tensor_names
from model.interop.loading import filled
from model.perceiver import Perceiver

_ENCODER, _CLASSES, _WORDS = "perceiver_encoder/~/", "classification_decoder/~/basic_decoder/", "basic_decoder/"
_POSITIONS = "trainable_position_encoding/pos_embs"
_BUILT = "image_preprocessor/~_build_network_inputs/"
_STEM = "image_preprocessor/~/conv2_d_downsample/~/"
_CROSS = {"norm_query": "layer_norm", "norm_tokens": "layer_norm_1", "norm_mlp": "layer_norm_2"}
_SELF = {"norm_attention": "layer_norm", "norm_mlp": "layer_norm_1"}
_LINEAR = {
    "attention.query": "attention/linear",
    "attention.key": "attention/linear_1",
    "attention.value": "attention/linear_2",
    "attention.output": "attention/linear_3",
    "mlp.widen": "mlp/linear",
    "mlp.narrow": "mlp/linear_1",
}
# What the released files do not say: their heads and blocks.
_OF_IMAGES = {"num_cross_attention_heads": 1, "num_self_attention_heads": 8, "num_blocks": 8}
_OF_WORDS = {"num_cross_attention_heads": 8, "num_self_attention_heads": 8, "num_blocks": 1}
Pairs = Iterator[tuple[str, str]]


def from_deepmind(arrays: Mapping[str, Tensor]) -> Perceiver:
    """Return the network of a released file's arrays, named MODULE/NAME; ValueError where it is none of those known."""
    arrays = {name.removeprefix("params/").removeprefix("state/"): tensor for name, tensor in arrays.items()}
    # Haiku's moving averages have counters and sums beside the averages.
    arrays = {name: each for name, each in arrays.items() if name.rpartition("/")[2] not in ("counter", "hidden")}
    architecture = _architecture(arrays)
    config = _config(architecture, arrays)
    state = {name: _turned(name, tensor) for name, tensor in arrays.items()}
    names = dict(_names(config, architecture))
    if architecture.endswith("ConvProcessing"):
        # PyTorch's batch norm counts its batches; of a fixed momentum nothing reads it.
        state["batches"] = torch.zeros((), dtype=torch.int64)
    return filled(config, names, state, whose="the file's arrays")


def _architecture(arrays: Mapping[str, Tensor]) -> str:
    """Return Hugging Face's name of the network that these arrays are of."""
    marks = {
        "embed/embeddings": "PerceiverForMaskedLM",
        f"{_STEM}conv/w": "PerceiverForImageClassificationConvProcessing",
        f"{_BUILT}{_POSITIONS}": "PerceiverForImageClassificationLearned",
    }
    for mark, architecture in marks.items():
        if mark in arrays:
            return architecture
    is_classifier = f"{_CLASSES}output/w" in arrays and not any(name.startswith("image_pre") for name in arrays)
    if is_classifier and f"{_ENCODER}{_POSITIONS}" in arrays:
        return "PerceiverForImageClassificationFourier"
    raise ValueError(
        "is none of DeepMind's masked language model and three image classifiers: expected arrays such as "
        f"{_ENCODER}{_POSITIONS}, got {', '.join(sorted(arrays)[:3]) or 'none'}"
    )


def _config(architecture: str, arrays: Mapping[str, Tensor]) -> PerceiverConfig:
    words = architecture == "PerceiverForMaskedLM"
    cross, own = f"{_ENCODER}cross_attention/", f"{_ENCODER}self_attention/"
    try:
        latents = arrays[f"{_ENCODER}{_POSITIONS}"].shape
        # Counted by one of their arrays: the files do not say how many layers a block has.
        layers = sum(
            name.startswith(f"{_ENCODER}self_attention") for name in arrays if name.endswith("attention/linear/w")
        )
        values: dict[str, Any] = {
            "architectures": [architecture],
            "num_latents": latents[0],
            "d_latents": latents[1],
            "d_model": len(arrays[f"{cross}layer_norm_1/scale"]),
            "num_self_attends_per_block": layers,
            "self_attention_widening_factor": arrays[f"{own}mlp/linear/w"].shape[1] // latents[1],
            "cross_attention_widening_factor": arrays[f"{cross}mlp/linear/w"].shape[1] // latents[1],
            "hidden_act": "gelu_pytorch_tanh",
            **(_OF_WORDS if words else _OF_IMAGES),
        }
        if words:
            vocabulary, places = arrays["embed/embeddings"], arrays[_POSITIONS]
            values |= {"vocab_size": len(vocabulary), "max_position_embeddings": len(places)}
            qk, value = (arrays[f"{own}attention/linear{number}/w"].shape[1] for number in ("_1", "_2"))
            values |= {"qk_channels": qk, "v_channels": value}
        else:
            values["num_labels"] = len(arrays[f"{_CLASSES}output/b"])
        if architecture == "PerceiverForImageClassificationLearned":
            values["image_size"] = isqrt(len(arrays[f"{_BUILT}{_POSITIONS}"]))
    except KeyError as error:
        raise ValueError(f"lacks the array {error.args[0]}") from error
    found = config_from_hugging_face(values)
    if architecture == "PerceiverForImageClassificationLearned":
        # Hugging Face adds the query to the answer of this model, DeepMind does not.
        found = replace(found, decoder=replace(found.decoder, query_residual=False))
    return found


def _turned(name: str, array: Tensor) -> Tensor:
    """Return an array with the axes of PyTorch: Haiku's layers have the inputs first."""
    if name.endswith("/w"):
        return array.T if array.dim() == 2 else array.permute(3, 2, 0, 1)
    return array


def _names(config: PerceiverConfig, architecture: str) -> Pairs:
    """Yield the name of every tensor here and there."""
    own = {name for name in tensor_names(config, architecture) if not name.startswith(("encoder.", "decoder."))}
    yield "encoder.latents.weight", f"{_ENCODER}{_POSITIONS}"
    yield from _layer("encoder.cross_attends.0", f"{_ENCODER}cross_attention", _CROSS)
    for layer in range(config.layers_per_block):
        number = f"_{layer}" if layer else ""
        yield from _layer(f"encoder.blocks.0.{layer}", f"{_ENCODER}self_attention{number}", _SELF)
    yield from ((here, there) for here, there in _INPUTS.items() if here in own)
    decoder = _WORDS if architecture == "PerceiverForMaskedLM" else _CLASSES
    yield from _layer("decoder.cross_attend", f"{decoder}cross_attention", _CROSS)
    answer = "text" if decoder == _WORDS else "label"
    yield f"decoder.queries.{answer}.table.weight", f"{decoder}~/{_POSITIONS}"
    if decoder == _WORDS:
        yield "decoder.heads.text.bias", "embedding_decoder/bias"
    else:
        yield from _linear("decoder.heads.label.logits", f"{decoder}output")


def _layer(here: str, there: str, norms: Mapping[str, str]) -> Pairs:
    for own, other in norms.items():
        yield f"{here}.{own}.weight", f"{there}/{other}/scale"
        yield f"{here}.{own}.bias", f"{there}/{other}/offset"
    for own, other in _LINEAR.items():
        yield from _linear(f"{here}.{own}", f"{there}/{other}")


def _linear(here: str, there: str) -> Pairs:
    yield f"{here}.weight", f"{there}/w"
    yield f"{here}.bias", f"{there}/b"


_IMAGE = "inputs.adapters.image"
_INPUTS = {
    "inputs.adapters.text.embedding.weight": "embed/embeddings",
    "inputs.adapters.text.places.weight": _POSITIONS,
    f"{_IMAGE}.project.weight": "image_preprocessor/~/conv2_d/w",
    f"{_IMAGE}.project.bias": "image_preprocessor/~/conv2_d/b",
    f"{_IMAGE}.positions.learned.weight": f"{_BUILT}{_POSITIONS}",
    f"{_IMAGE}.positions.project.weight": f"{_BUILT}position_encoding_projector/linear/w",
    f"{_IMAGE}.positions.project.bias": f"{_BUILT}position_encoding_projector/linear/b",
    f"{_IMAGE}.stem.convolution.weight": f"{_STEM}conv/w",
    f"{_IMAGE}.stem.norm.weight": f"{_STEM}batchnorm/scale",
    f"{_IMAGE}.stem.norm.bias": f"{_STEM}batchnorm/offset",
    f"{_IMAGE}.stem.norm.running_mean": f"{_STEM}batchnorm/~/mean_ema/average",
    f"{_IMAGE}.stem.norm.running_var": f"{_STEM}batchnorm/~/var_ema/average",
    f"{_IMAGE}.stem.norm.num_batches_tracked": "batches",
}
"""The tensors of all inputs."""
