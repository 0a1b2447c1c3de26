"""Conversion between the configuration and Hugging Face's config.json of a Perceiver.

    network here --> config.json --> the network that transformers makes of it
         '---- all that decides a number of an answer must be equal ----'

Its models fix in code what is a field here (bands, residuals, paddings): what it cannot express is refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from model.checks import check_values
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.interop.computation import differences
from model.interop.huggingface_models import PARTS, UNSAID_SIDE
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.grid import GridOutput
from model.outputs.kinds import kind_of
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput

# What a config.json leaves out has these values.
_DEFAULTS: dict[str, Any] = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "vocab_size": 262,
    "max_position_embeddings": 2048,
    "image_size": UNSAID_SIDE,
    "train_size": (368, 496),
    "num_frames": 16,
    "audio_samples_per_frame": 1920,
    "samples_per_patch": 16,
    "output_shape": (1, 16, 224, 224),
    "output_num_channels": 512,
    "_label_trainable_num_channels": 1024,
}
_OTHER_FORMATS = "export it as ONNX (--onnx), or as a folder that every command here takes (--safetensors)"
_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


def config_from_hugging_face(config: Mapping[str, Any], side: int = 0) -> PerceiverConfig:
    """Return the config of the network that answers as the model of a config.json does.

    `side` is that of the images, where a preprocessor's file says it: most config.json do not.
    """
    # transformers writes only what differs from its defaults.
    values = _DEFAULTS | dict(config) | ({"image_side": side} if side else {})
    # Any file may be given: a width of 10^12 or a list in place of a number must be a sentence.
    check_values(values, _DEFAULTS)
    architecture = architecture_of(values)
    if values["hidden_act"] not in _GELU:
        raise ValueError(f"hidden_act: expected one of {', '.join(_GELU)}, got {values['hidden_act']}")
    if config.get("use_query_residual", True) is not True:
        raise ValueError(
            "use_query_residual: expected true, since this network adds what the latents read to the latents, got "
            f"{config['use_query_residual']!r:.60}; its weights would answer something else here"
        )
    inputs, outputs, decoder = PARTS[architecture](values)
    widths: dict[str, Any] = {"qk_width": values["qk_channels"] or 0, "value_width": values["v_channels"] or 0}
    cross_widths = dict(widths)
    # "kv" is as wide as what is read, which is the default here, too; "q" is as wide as what asks.
    if values["cross_attention_shape_for_attention"] == "q" and not widths["qk_width"]:
        cross_widths["qk_width"] = values["d_latents"]
    return PerceiverConfig(
        inputs=inputs,
        outputs=outputs,
        decoder=decoder,
        # This model alone has mask tokens among its tensors, whether a mask is drawn or not.
        mask_tokens=architecture == "PerceiverForMultimodalAutoencoding",
        num_latents=values["num_latents"],
        latent_width=values["d_latents"],
        num_cross_attends=1,
        num_blocks=values["num_blocks"],
        layers_per_block=values["num_self_attends_per_block"],
        cross_attend=AttentionConfig(
            num_heads=values["num_cross_attention_heads"],
            mlp_ratio=values["cross_attention_widening_factor"],
            **cross_widths,
        ),
        self_attend=AttentionConfig(
            num_heads=values["num_self_attention_heads"], mlp_ratio=values["self_attention_widening_factor"], **widths
        ),
        gelu="tanh" if _GELU[values["hidden_act"]] == "tanh" else "erf",
    )


def config_to_hugging_face(config: PerceiverConfig) -> dict[str, Any]:
    """Return the config.json of the model that answers as this network does.

    Raises ValueError with what Hugging Face's models cannot express: they would load and answer something else.
    """
    architecture, new_names = _architecture_for(config), names_of_outputs(config)
    config = replace(config, outputs={new_names[name]: output for name, output in config.answers().items()})
    image = config.input_of(ImageInput)
    if image and image.conv_stem:
        raise ValueError(
            "inputs.image.conv_stem: transformers pads this convolution otherwise, so that its model would answer "
            f"something else; {_OTHER_FORMATS}"
        )
    values: dict[str, Any] = {
        "model_type": "perceiver",
        "architectures": [architecture],
        "num_latents": config.num_latents,
        "d_latents": config.latent_width,
        "d_model": config.token_width,
        "num_blocks": config.num_blocks,
        "num_self_attends_per_block": config.layers_per_block,
        "num_self_attention_heads": config.self_attend.num_heads,
        "num_cross_attention_heads": config.cross_attend.num_heads,
        "qk_channels": config.self_attend.qk_width or None,
        "v_channels": config.self_attend.value_width or None,
        "self_attention_widening_factor": config.self_attend.mlp_ratio,
        "cross_attention_widening_factor": config.cross_attend.mlp_ratio,
        "hidden_act": "gelu_pytorch_tanh" if config.gelu == "tanh" else "gelu",
        # Said, since transformers takes 0.1 where it is not: its model would drop attention weights when it is trained.
        "attention_probs_dropout_prob": 0.0,
        **_values_of_inputs(config),
    }
    side = image.height if image else 0
    # Read back, and compared with what was to be written: transformers fixes bands, residuals and paddings in its code,
    # and would load other ones without a word.
    again = config_from_hugging_face(values, side)
    if others := differences(config, again):
        raise ValueError(f"{architecture} cannot express this network: {'; '.join(others)}; {_OTHER_FORMATS}")
    return values


def names_of_outputs(config: PerceiverConfig) -> dict[str, str]:
    """Return the name that each output has in a network that comes from Hugging Face: by its kind, or what it draws."""
    answers = config.answers()
    usual = {
        name: output.target if isinstance(output, GridOutput) else kind_of(type(output))
        for name, output in answers.items()
    }
    # Two outputs of one kind cannot both have its name. They keep theirs, and are refused with all other differences.
    is_clear = len(set(usual.values())) == len(usual)
    return usual if is_clear else {name: name for name in answers}


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return the class that a config.json names; ValueError if there is no such network here."""
    architectures = config.get("architectures") or ["none"]
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise ValueError(f"architectures: expected a list of one name, got {repr(architectures)[:40]}")
    named = list(architectures)
    if named[0] not in PARTS:
        raise ValueError(f"architectures: expected one of {', '.join(PARTS)}, got {named[0]}")
    return str(named[0])


def _architecture_for(config: PerceiverConfig) -> str:
    image, outputs = config.input_of(ImageInput), config.outputs
    if config.stream:
        raise ValueError(
            f"outputs: Hugging Face has no Perceiver that continues inputs.{config.stream}; `perceiver generate` and "
            "model.generation do"
        )
    if len(config.inputs) > 1:
        return "PerceiverForMultimodalAutoencoding"
    if config.input_of(FlowInput):
        return "PerceiverForOpticalFlow"
    if config.input_of(TextInput):
        fills_in = any(isinstance(output, TextOutput) for output in outputs.values())
        return "PerceiverForMaskedLM" if fills_in else "PerceiverForSequenceClassification"
    if image and image.conv_stem:
        return "PerceiverForImageClassificationConvProcessing"
    if image and image.positions.kind == "learned":
        return "PerceiverForImageClassificationLearned"
    if image:
        return "PerceiverForImageClassificationFourier"
    raise ValueError(f"inputs: Hugging Face has no Perceiver that reads {', '.join(config.ordered_inputs)} alone")


def _values_of_inputs(config: PerceiverConfig) -> dict[str, Any]:
    """The fields of a config.json that say what is read and answered."""
    values: dict[str, Any] = {}
    for modality in config.ordered_inputs.values():
        match modality:
            case ImageInput():
                values |= {"image_size": modality.height}
            case TextInput():
                values |= {"max_position_embeddings": modality.max_tokens, "vocab_size": modality.vocabulary}
            case FlowInput():
                values |= {"train_size": [modality.height, modality.width]}
            case VideoInput():
                resolution = modality.positions.max_resolution or modality.grid
                values |= {"num_frames": modality.num_frames, "image_size": resolution[-1]}
            case AudioInput():
                values |= {"samples_per_patch": modality.patch, "audio_samples": modality.num_samples}
    if "audio_samples" in values:
        values["audio_samples_per_frame"] = values.pop("audio_samples") // values.get("num_frames", 1)
    answers = config.answers()
    label, video = answers.get("label"), answers.get("video")
    if isinstance(label, LabelOutput):
        # A mean has no query; that it cannot be expressed is said where all facts are compared.
        query_width = label.own_width(config) or config.latent_width
        values |= {"num_labels": label.num_classes, "_label_trainable_num_channels": query_width}
    if isinstance(video, GridOutput):
        values |= {"output_shape": [1, *video.shape], "output_num_channels": config.decoder.output_width}
    return values
