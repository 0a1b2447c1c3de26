"""DeepMind's released networks, from arrays under Haiku's names: words, images, motion, and clips with sound.

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

_FOURIER = "PerceiverForImageClassificationFourier"
_LEARNED = "PerceiverForImageClassificationLearned"
_CONV = "PerceiverForImageClassificationConvProcessing"
_MASKED, _FLOW, _CLIPS = "PerceiverForMaskedLM", "PerceiverForOpticalFlow", "PerceiverForMultimodalAutoencoding"
_CLASSES = "classification_decoder/~/basic_decoder/"
_ENCODERS = {_CLIPS: "encoder/~/"}
"""Where another than perceiver_encoder/~/."""
_DECODERS = {
    _MASKED: "basic_decoder/",
    _FLOW: "flow_decoder/~/basic_decoder/",
    _CLIPS: "multimodal_decoder/~/basic_decoder/",
}
"""Where another than that of classes."""
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
_HEADS_AND_BLOCKS = {
    _MASKED: {"num_cross_attention_heads": 8, "num_self_attention_heads": 8, "num_blocks": 1},
    _FLOW: {"num_cross_attention_heads": 1, "num_self_attention_heads": 16, "num_blocks": 1},
    _CLIPS: {"num_cross_attention_heads": 1, "num_self_attention_heads": 8, "num_blocks": 1},
}
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
    if architecture == _CONV:
        # PyTorch's batch norm counts its batches; of a fixed momentum nothing reads it.
        state["batches"] = torch.zeros((), dtype=torch.int64)
    return filled(config, names, state, whose="the file's arrays")


def _architecture(arrays: Mapping[str, Tensor]) -> str:
    """Return Hugging Face's name of the network that these arrays are of."""
    marks = {
        "embed/embeddings": _MASKED,
        f"{_STEM}conv/w": _CONV,
        f"{_BUILT}{_POSITIONS}": _LEARNED,
        "image_preprocessor/patches_linear/w": _FLOW,
        "multimodal_preprocessor/audio_padding/pos_embs": _CLIPS,
    }
    for mark, architecture in marks.items():
        if mark in arrays:
            return architecture
    is_classifier = f"{_CLASSES}output/w" in arrays and not any(name.startswith("image_pre") for name in arrays)
    if is_classifier and f"{_encoder(_FOURIER)}{_POSITIONS}" in arrays:
        return _FOURIER
    raise ValueError(
        "is none of DeepMind's masked language model, three image classifiers, optical flow and multimodal "
        f"autoencoder: expected arrays such as {_encoder(_FOURIER)}{_POSITIONS}, got "
        f"{', '.join(sorted(arrays)[:3]) or 'none'}"
    )


def _config(architecture: str, arrays: Mapping[str, Tensor]) -> PerceiverConfig:
    encoder = _encoder(architecture)
    cross, own = f"{encoder}cross_attention/", f"{encoder}self_attention/"
    try:
        latents = arrays[f"{encoder}{_POSITIONS}"].shape
        # Counted by one of their arrays: the files do not say how many layers a block has.
        layers = sum(
            name.startswith(f"{encoder}self_attention") for name in arrays if name.endswith("attention/linear/w")
        )
        values: dict[str, Any] = {
            "architectures": [architecture],
            "num_latents": latents[0],
            "d_latents": latents[1],
            "d_model": len(arrays[f"{cross}layer_norm_1/scale"]),
            "num_self_attends_per_block": layers,
            "self_attention_widening_factor": arrays[f"{own}mlp/linear/w"].shape[1] // latents[1],
            "cross_attention_widening_factor": arrays[f"{cross}mlp/linear/w"].shape[1] // latents[1],
            # jax.nn.gelu computes the tanh form by default. Hugging Face's config.json of the same weights names the
            # exact one, and answers otherwise: by 4e-4 on logits of up to 1.7, measured with random weights.
            "hidden_act": "gelu_pytorch_tanh",
            **_HEADS_AND_BLOCKS.get(architecture, _OF_IMAGES),
            **_ends(architecture, arrays),
        }
    except KeyError as error:
        raise ValueError(f"lacks the array {error.args[0]}") from error
    found = config_from_hugging_face(values)
    if architecture == _LEARNED:
        # Hugging Face adds the query to the answer of this model, DeepMind does not.
        found = replace(found, decoder=replace(found.decoder, query_residual=False))
    return found


def _ends(architecture: str, arrays: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what a config.json says of the inputs and answers; sizes of clips and frames are the released ones."""
    if architecture == _MASKED:
        own = f"{_encoder(architecture)}self_attention/"
        qk, value = (arrays[f"{own}attention/linear{number}/w"].shape[1] for number in ("_1", "_2"))
        places, vocabulary = len(arrays[_POSITIONS]), len(arrays["embed/embeddings"])
        return {
            "vocab_size": vocabulary,
            "max_position_embeddings": places,
            "qk_channels": qk,
            "v_channels": value,
        }
    if architecture == _FLOW:
        return {}
    if architecture == _CLIPS:
        return {
            "num_labels": len(arrays["classification_postprocessor/linear/b"]),
            "output_num_channels": len(arrays[f"{_DECODERS[_CLIPS]}output/b"]),
            "_label_trainable_num_channels": arrays[f"{_CLASSES}~/{_POSITIONS}"].shape[1],
        }
    found = {"num_labels": len(arrays[f"{_CLASSES}output/b"])}
    if architecture == _LEARNED:
        found["image_size"] = isqrt(len(arrays[f"{_BUILT}{_POSITIONS}"]))
    return found


def _encoder(architecture: str) -> str:
    return _ENCODERS.get(architecture, "perceiver_encoder/~/")


def _turned(name: str, array: Tensor) -> Tensor:
    """Return an array with the axes of PyTorch: Haiku's layers have the inputs first."""
    if name.endswith("/w"):
        # A convolution there is (rows, columns, in, out), here (out, in, rows, columns).
        return array.T if array.dim() == 2 else array.permute(3, 2, 0, 1)
    return array


def _names(config: PerceiverConfig, architecture: str) -> Pairs:
    """Yield the name of every tensor here and there."""
    own, encoder = tensor_names(config, architecture), _encoder(architecture)
    yield "encoder.latents.weight", f"{encoder}{_POSITIONS}"
    yield from _layer("encoder.cross_attends.0", f"{encoder}cross_attention", _CROSS)
    for layer in range(config.layers_per_block):
        number = f"_{layer}" if layer else ""
        yield from _layer(f"encoder.blocks.0.{layer}", f"{encoder}self_attention{number}", _SELF)
    yield from ((here, there) for here, there in _INPUTS.items() if here in own)
    decoder = _DECODERS.get(architecture, _CLASSES)
    yield from _layer("decoder.cross_attend", f"{decoder}cross_attention", _CROSS)
    yield from _answers(architecture, decoder)


def _answers(architecture: str, decoder: str) -> Pairs:
    if architecture == _FLOW:
        yield from _linear("decoder.heads.flow.values", f"{decoder}output")
    elif architecture == _MASKED:
        yield "decoder.queries.text.table.weight", f"{decoder}~/{_POSITIONS}"
        yield "decoder.heads.text.bias", "embedding_decoder/bias"
    else:
        # The query of clips' classes is that of a classifier, which decodes nothing.
        yield "decoder.queries.label.table.weight", f"{_CLASSES}~/{_POSITIONS}"
    if architecture == _CLIPS:
        yield from _linear("decoder.project", f"{decoder}output")
        for here, (there, head, postprocessor) in _OF_CLIPS.items():
            yield f"inputs.paddings.{here}.weight", f"multimodal_preprocessor/{there}_padding/pos_embs"
            yield f"inputs.mask_tokens.{here}.weight", f"multimodal_preprocessor/{there}_mask_token/pos_embs"
            yield f"decoder.paddings.{here}.weight", f"multimodal_decoder/~decoder_query/{there}_padding/pos_embs"
            yield from _linear(f"decoder.heads.{here}.{head}", f"{postprocessor}_postprocessor/linear")
    elif architecture not in (_FLOW, _MASKED):
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


_OF_CLIPS = {
    "audio": ("audio", "values", "audio"),
    "label": ("label", "logits", "classification"),
    "video": ("image", "values", "projection"),
}
"""The name of each modality of clips there, of its head here, and of what makes its answer there."""
_IMAGE = "inputs.adapters.image"
_INPUTS = {
    "inputs.adapters.flow.project.weight": "image_preprocessor/patches_linear/w",
    "inputs.adapters.flow.project.bias": "image_preprocessor/patches_linear/b",
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
