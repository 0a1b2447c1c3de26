"""Conversion between a network and Hugging Face's Perceiver: config.json and the tensors of its state dict.

Only tensors and dictionaries here; who reads and writes the files is the command line. docs/parity.md has what differs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from model.checks import check_names
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_config import (
    architecture_of,
    config_from_hugging_face,
    config_to_hugging_face,
    names_of_outputs,
)
from model.interop.huggingface_files import picture
from model.interop.huggingface_names import tensor_names
from model.interop.loading import filled, refuse_endless
from model.modalities.image import ImageInput
from model.network import AnyNetwork
from model.perceiver import Perceiver

_CONVOLUTION = "perceiver.input_preprocessor.convnet_1x1.weight"


def from_hugging_face(
    config: Mapping[str, Any], state: Mapping[str, Tensor], preprocessor: Mapping[str, Any] | None = None
) -> Perceiver:
    """Return the network of a config.json and its tensors, which answers as Hugging Face's model does.

    A preprocessor_config.json says what becomes of pixels before. Raises ValueError with every missing, surplus or
    misshapen tensor.
    """
    ours = _config(config, preprocessor)
    refuse_endless(ours, state, "num_self_attends_per_block")
    # Its 1x1 convolution is a linear layer here.
    return filled(ours, tensor_names(ours, architecture_of(config)), state, whose="Hugging Face's state dict")


def _renamed(tensor: str, new_names: Mapping[str, str]) -> str:
    """Return the name of a tensor of a network whose outputs have other names."""
    decoder, *parts = tensor.split(".")
    if decoder == "decoder" and parts[0] in ("heads", "means", "paddings", "queries"):
        parts[1] = new_names[parts[1]]
    return ".".join([decoder, *parts])


def _config(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> PerceiverConfig:
    if preprocessor is None:
        return config_from_hugging_face(config)
    side, pixel_range = picture(preprocessor)
    # The side comes from the preprocessor: most files' image_size is not that of the pictures.
    ours = config_from_hugging_face(config, side)
    image = ours.input_of(ImageInput)
    return replace(ours, inputs={"image": replace(image, pixel_range=pixel_range)}) if image else ours


def to_hugging_face(network: AnyNetwork) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config.json and the tensors that Hugging Face's model of the same architecture loads.

    Raises ValueError if it has no such architecture.
    """
    if network.config.network is not None:
        kind = network.config.network.kind
        raise ValueError(
            f"model.network: Hugging Face's files are of Perceivers, and this is {kind}; export it as ONNX"
        )
    config = config_to_hugging_face(network.config)
    new_names = names_of_outputs(network.config)
    names = tensor_names(network.config, architecture_of(config))
    own = {_renamed(name, new_names): tensor for name, tensor in network.state_dict().items()}
    check_names("the network", names, own)
    # safetensors refuses what is not contiguous.
    state = {there: own[here].contiguous() for here, there in names.items()}
    if _CONVOLUTION in state:
        state[_CONVOLUTION] = state[_CONVOLUTION][:, :, None, None]
    return config, state
