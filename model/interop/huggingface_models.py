"""Hugging Face's models: the inputs, outputs and decoder of each, from the values of its config.json."""

from collections.abc import Mapping
from typing import Any

from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.output import Output
from model.outputs.text import TextOutput

# Hugging Face's default. Of the image models only that with learned positions reads it: the others' released files have
# it, and are for images of _RELEASED_SIDE.
UNSAID_SIDE, _RELEASED_SIDE = 56, 224
_Outputs = dict[str, Output]
_Inputs = dict[str, Input]
_Parts = tuple[_Inputs, _Outputs, DecoderConfig]


def _num_labels(values: Mapping[str, Any]) -> int:
    # transformers writes id2label in place of num_labels, and neither for its default of two classes.
    return int(values.get("num_labels") or len(values.get("id2label") or ()) or 2)


def _label(values: Mapping[str, Any]) -> _Outputs:
    return {"label": LabelOutput(num_classes=_num_labels(values), pooling="query")}


def _side(values: Mapping[str, Any]) -> int:
    """Rows and columns of the images of a model whose config.json need not say it."""
    said = int(values["image_size"])
    return int(values.get("image_side") or (_RELEASED_SIDE if said == UNSAID_SIDE else said))


def _fourier(values: Mapping[str, Any]) -> _Parts:
    # Bands and frequencies stand in transformers' code: images of another side are read with those of 224.
    positions = PositionsConfig(num_bands=64, max_resolution=(224, 224))
    image = ImageInput(height=_side(values), width=_side(values), pixel_range="imagenet", positions=positions)
    return {"image": image}, _label(values), DecoderConfig(query_residual=True)


def _learned(values: Mapping[str, Any]) -> _Parts:
    # Here it is the side of the table of positions.
    side = values["image_size"]
    positions = PositionsConfig(kind="learned", learned_width=256, project_to=256)
    image = ImageInput(height=side, width=side, project_to=256, pixel_range="imagenet", positions=positions)
    # DeepMind's own file of this model has no residual here; its shapes are the same.
    return {"image": image}, _label(values), DecoderConfig(query_residual=True)


def _conv(values: Mapping[str, Any]) -> _Parts:
    positions = PositionsConfig(num_bands=64, max_resolution=(56, 56))
    image = ImageInput(
        height=_side(values), width=_side(values), conv_stem=True, pixel_range="imagenet", positions=positions
    )
    return {"image": image}, _label(values), DecoderConfig(query_residual=True)


def _words(values: Mapping[str, Any]) -> _Inputs:
    text = TextInput(
        max_tokens=values["max_position_embeddings"], vocabulary=values["vocab_size"], embedding_width=values["d_model"]
    )
    return {"text": text}


def _sequence(values: Mapping[str, Any]) -> _Parts:
    return _words(values), _label(values), DecoderConfig(query_residual=True)


def _text(values: Mapping[str, Any]) -> _Parts:
    # Heads and width of this decoder stand in transformers' code, not in config.json.
    attention = AttentionConfig(num_heads=8, qk_width=256, value_width=values["d_model"])
    return _words(values), {"text": TextOutput()}, DecoderConfig(cross_attend=attention)


def _flow(values: Mapping[str, Any]) -> _Parts:
    height, width = values["train_size"]
    positions = PositionsConfig(num_bands=64, max_resolution=(height, width))
    flow = FlowInput(height=height, width=width, project_to=64, positions=positions)
    return {"flow": flow}, {"flow": FlowOutput()}, DecoderConfig()


def _multimodal(values: Mapping[str, Any]) -> _Parts:
    frames, tokens, patch = values["num_frames"], values["image_size"], values["samples_per_patch"]
    samples = frames * values["audio_samples_per_frame"]
    # As released: frequencies up to those of samples, of which a token holds 16, so that the highest ones repeat the
    # lower (google-deepmind/deepmind-research#401).
    hearing = PositionsConfig(num_bands=192, max_resolution=(samples,))
    # image_size counts tokens, of 4 x 4 pixels each; the clip is drawn again in its own size.
    seeing = PositionsConfig(num_bands=32, max_resolution=(frames, tokens, tokens))
    shape = tuple(values["output_shape"][1:4])
    inputs: _Inputs = {
        "audio": AudioInput(num_samples=samples, patch=patch, positions=hearing),
        "label": LabelInput(num_classes=_num_labels(values)),
        "video": VideoInput(num_frames=frames, height=shape[1], width=shape[2], patch=4, positions=seeing),
    }
    query_width = values["_label_trainable_num_channels"]
    outputs: _Outputs = {
        "audio": GridOutput(shape=(samples // patch,), num_channels=patch, positions=hearing),
        "label": LabelOutput(num_classes=_num_labels(values), pooling="query", query_width=query_width),
        "video": GridOutput(shape=shape, num_channels=3, positions=seeing),
    }
    return inputs, outputs, DecoderConfig(output_width=values["output_num_channels"])


PARTS = {
    "PerceiverForMaskedLM": _text,
    "PerceiverForSequenceClassification": _sequence,
    "PerceiverForImageClassificationFourier": _fourier,
    "PerceiverForImageClassificationLearned": _learned,
    "PerceiverForImageClassificationConvProcessing": _conv,
    "PerceiverForOpticalFlow": _flow,
    "PerceiverForMultimodalAutoencoding": _multimodal,
}
"""The function that makes the parts of a network, by the architecture that a config.json names."""
