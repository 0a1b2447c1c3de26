"""Hugging Face's config.json: what it leaves out, what it may say, and what it cannot say of a network."""

import dataclasses
import json
import re
from typing import Any

import pytest
import torch
import transformers

from model.checks import check_values
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface import from_hugging_face, to_hugging_face
from model.interop.huggingface_config import architecture_of, config_from_hugging_face, config_to_hugging_face
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

FOURIER = "PerceiverForImageClassificationFourier"
LEARNED = "PerceiverForImageClassificationLearned"
CONV = "PerceiverForImageClassificationConvProcessing"
TEXT, SEQUENCE = "PerceiverForMaskedLM", "PerceiverForSequenceClassification"
FLOW, MULTIMODAL = "PerceiverForOpticalFlow", "PerceiverForMultimodalAutoencoding"
ALL = (FOURIER, LEARNED, CONV, TEXT, SEQUENCE, FLOW, MULTIMODAL)
SMALL: dict[str, Any] = {
    "num_latents": 4,
    "d_latents": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "image_size": 8,
    "num_labels": 5,
}


def said(architecture: str, **values: object) -> dict[str, Any]:
    return SMALL | {"architectures": [architecture]} | values


@pytest.mark.parametrize("architecture", ALL)
def test_what_a_config_leaves_out_is_what_transformers_takes(architecture: str) -> None:
    whole = transformers.PerceiverConfig().to_dict() | {"architectures": [architecture]}
    assert config_from_hugging_face({"architectures": [architecture]}) == config_from_hugging_face(whole)


LABEL = {"label": LabelOutput(num_classes=5, pooling="query")}
WORDS = {"text": TextInput(max_tokens=12, vocabulary=40, embedding_width=24)}
HEARING = PositionsConfig(num_bands=192, max_resolution=(96,))
SEEING = PositionsConfig(num_bands=32, max_resolution=(3, 6, 6))


def image(**fields: Any) -> dict[str, Input]:  # noqa: ANN401  # any field
    return {"image": ImageInput(height=8, width=8, pixel_range="imagenet", **fields)}


ENDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    FOURIER: (
        {},
        {
            "inputs": image(positions=PositionsConfig(num_bands=64, max_resolution=(224, 224))),
            "outputs": LABEL,
            "decoder": DecoderConfig(query_residual=True),
        },
    ),
    LEARNED: (
        {},
        {
            "inputs": image(project_to=256, positions=PositionsConfig("learned", learned_width=256, project_to=256)),
            "outputs": LABEL,
            "decoder": DecoderConfig(query_residual=True),
        },
    ),
    CONV: (
        {},
        {
            "inputs": image(conv_stem=True, positions=PositionsConfig(num_bands=64, max_resolution=(56, 56))),
            "outputs": LABEL,
            "decoder": DecoderConfig(query_residual=True),
        },
    ),
    SEQUENCE: ({}, {"inputs": WORDS, "outputs": LABEL, "decoder": DecoderConfig(query_residual=True)}),
    TEXT: (
        {},
        {
            "inputs": WORDS,
            "outputs": {"text": TextOutput()},
            "decoder": DecoderConfig(cross_attend=AttentionConfig(num_heads=8, qk_width=256, value_width=24)),
        },
    ),
    FLOW: (
        {"train_size": [6, 10]},
        {
            "inputs": {
                "flow": FlowInput(
                    height=6, width=10, project_to=64, positions=PositionsConfig(num_bands=64, max_resolution=(6, 10))
                )
            },
            "outputs": {"flow": FlowOutput()},
        },
    ),
    MULTIMODAL: (
        {"num_frames": 3, "audio_samples_per_frame": 32, "samples_per_patch": 8, "image_size": 6}
        | {"output_shape": [1, 3, 8, 12], "output_num_channels": 20, "_label_trainable_num_channels": 14},
        {
            "inputs": {
                "audio": AudioInput(num_samples=96, patch=8, positions=HEARING),
                "label": LabelInput(num_classes=5),
                "video": VideoInput(num_frames=3, height=8, width=12, patch=4, positions=SEEING),
            },
            "outputs": {
                "audio": GridOutput(shape=(12,), num_channels=8, positions=HEARING),
                "label": LabelOutput(num_classes=5, pooling="query", query_width=14),
                "video": GridOutput(shape=(3, 8, 12), num_channels=3, positions=SEEING),
            },
            "decoder": DecoderConfig(output_width=20),
            "mask_tokens": True,
        },
    ),
}


SIZES = {
    "d_model": 24,
    "max_position_embeddings": 12,
    "vocab_size": 40,
    "num_blocks": 3,
    "num_self_attends_per_block": 6,
    "qk_channels": 32,
    "v_channels": 48,
    "cross_attention_widening_factor": 2,
    "self_attention_widening_factor": 3,
}


@pytest.mark.parametrize("architecture", ENDS)
def test_each_model_is_this_network(architecture: str) -> None:
    values, ends = ENDS[architecture]
    expected = PerceiverConfig(
        num_latents=4,
        latent_width=16,
        num_cross_attends=1,
        num_blocks=3,
        layers_per_block=6,
        cross_attend=AttentionConfig(num_heads=1, qk_width=32, value_width=48, mlp_ratio=2),
        self_attend=AttentionConfig(num_heads=2, qk_width=32, value_width=48, mlp_ratio=3),
        gelu="erf",
        **ends,
    )
    assert config_from_hugging_face(said(architecture, **SIZES | values)) == expected


OF_A_LABEL = {"num_labels": 5, "_label_trainable_num_channels": 16}
OF_WORDS = {"max_position_embeddings": 12, "vocab_size": 40}
WRITTEN: dict[str, dict[str, Any]] = {
    FOURIER: {"d_model": 261, "image_size": 8, **OF_A_LABEL},
    LEARNED: {"d_model": 512, "image_size": 8, **OF_A_LABEL},
    SEQUENCE: {"d_model": 24, **OF_WORDS, **OF_A_LABEL},
    TEXT: {"d_model": 24, **OF_WORDS},
    FLOW: {"d_model": 322, "train_size": [6, 10]},
    # The sound is the widest: a patch, 192 bands of an axis, and the padding.
    MULTIMODAL: {
        "d_model": 8 + 385 + 4,
        "num_frames": 3,
        "audio_samples_per_frame": 32,
        "samples_per_patch": 8,
        "image_size": 6,
        "output_shape": [1, 3, 8, 12],
        "output_num_channels": 20,
        "num_labels": 5,
        "_label_trainable_num_channels": 14,
    },
}


@pytest.mark.parametrize("architecture", WRITTEN)
def test_each_network_is_this_config(architecture: str) -> None:
    config = config_from_hugging_face(said(architecture, **SIZES | ENDS[architecture][0]))
    expected = {
        "model_type": "perceiver",
        "architectures": [architecture],
        "num_latents": 4,
        "d_latents": 16,
        "num_blocks": 3,
        "num_self_attends_per_block": 6,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 1,
        "qk_channels": 32,
        "v_channels": 48,
        "self_attention_widening_factor": 3,
        "cross_attention_widening_factor": 2,
        "hidden_act": "gelu",
        "attention_probs_dropout_prob": 0.0,
    }
    assert config_to_hugging_face(config) == expected | WRITTEN[architecture]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("num_latents", value) for value in (0, -1, True, "8", 2.0, None, 2**20 + 1)),
        *(("qk_channels", value) for value in (0, "8", True)),
        *(("train_size", value) for value in (368, [368], [368, 0], [368, 496, 3], [368, True], None)),
        *(("output_shape", value) for value in ([1, 2, 8], [1, 2, 8, "8"])),
        *(("hidden_act", value) for value in (3, None, "relu")),
        *(("use_query_residual", value) for value in (False, None, 1, "true")),
        *(("architectures", value) for value in ("BertModel", [FOURIER, 3], [3], ["BertModel"], [])),
    ],
)
def test_a_value_that_no_model_has_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{key}: expected"):
        config_from_hugging_face(said(FLOW) | {key: value})


def test_the_least_and_the_largest_sizes_are_allowed() -> None:
    defaults = {"size": 3, "sides": (2, 2), "perhaps": None, "word": "a"}
    check_values({"size": 1, "sides": [1, 2**20], "perhaps": None, "word": "b"}, defaults)
    check_values({"size": 2**20, "sides": (1, 1), "perhaps": 5, "word": ""}, defaults)
    # A field that is no size by default may not be left empty.
    with pytest.raises(ValueError, match="size: expected a whole number from 1 to 1048576, got None"):
        check_values({"size": None, "sides": [1, 1], "perhaps": None, "word": ""}, defaults)


def test_classes_are_counted_by_number_or_by_name() -> None:
    def classes(**values: object) -> int:
        config = config_from_hugging_face({"architectures": [SEQUENCE], **values})
        label = config.outputs["label"]
        assert isinstance(label, LabelOutput)
        return label.num_classes

    names = {"0": "a", "1": "b", "2": "c"}
    assert (classes(), classes(id2label=names), classes(id2label=names, num_labels=7)) == (2, 3, 7)


def test_keys_are_as_wide_as_the_latents_where_the_config_says_so() -> None:
    def widths(**values: object) -> tuple[int, int, int]:
        config = config_from_hugging_face(said(SEQUENCE, **values))
        return config.cross_attend.qk_width, config.cross_attend.value_width, config.self_attend.qk_width

    assert widths() == (0, 0, 0)
    assert widths(cross_attention_shape_for_attention="q") == (16, 0, 0)
    assert widths(cross_attention_shape_for_attention="q", qk_channels=8, v_channels=12) == (8, 12, 8)
    assert widths(qk_channels=8) == (8, 0, 8)


def test_the_side_of_images_is_that_of_the_preprocessor_then_that_of_the_config() -> None:
    def shape(architecture: str, side: int = 0, **values: object) -> tuple[int, ...]:
        image = config_from_hugging_face({"architectures": [architecture], **values}, side).inputs["image"]
        assert image is not None
        return image.shape[:2]

    for architecture in (FOURIER, CONV):
        assert shape(architecture) == (224, 224)
        assert shape(architecture, image_size=32) == (32, 32)
        assert shape(architecture, side=48, image_size=32) == (48, 48)
    # The table of positions decides.
    assert shape(LEARNED, side=48) == (56, 56)


def test_a_clip_and_its_sound_have_the_lengths_that_the_config_says() -> None:
    sizes = {"num_frames": 2, "audio_samples_per_frame": 32, "samples_per_patch": 16, "image_size": 6}
    config = config_from_hugging_face(said(MULTIMODAL, **sizes, output_shape=[1, 2, 8, 12], output_num_channels=24))
    audio, video, label = config.inputs["audio"], config.inputs["video"], config.inputs["label"]
    assert audio is not None
    assert video is not None
    assert label is not None
    assert (audio.shape, audio.patch, audio.positions.num_bands, audio.positions.max_resolution) == (
        (64,),
        16,
        192,
        (64,),
    )
    assert (video.shape, video.grid, video.positions.max_resolution) == ((2, 8, 12, 3), (2, 2, 3), (2, 6, 6))
    heard, seen = config.answers()["audio"], config.answers()["video"]
    assert isinstance(heard, GridOutput)
    assert isinstance(seen, GridOutput)
    assert (heard.shape, heard.num_channels, heard.positions) == ((4,), 16, audio.positions)
    assert (seen.shape, seen.positions, video.positions.num_bands) == ((2, 8, 12), video.positions, 32)
    assert (config.decoder.output_width, label.num_classes) == (24, 5)
    assert config.mask_tokens
    again = config_to_hugging_face(config)
    assert {name: again[name] for name in sizes} == sizes
    assert (again["output_shape"], again["output_num_channels"], again["num_labels"]) == ([1, 2, 8, 12], 24, 5)


def altered(config: PerceiverConfig, part: str, **changes: Any) -> PerceiverConfig:  # noqa: ANN401  # any field
    names = part.split(".") if part else []

    def deep(value: Any, left: list[str]) -> Any:  # noqa: ANN401  # any dataclass of a config
        if not left:
            return value | changes if isinstance(value, dict) else dataclasses.replace(value, **changes)
        if isinstance(value, dict):
            return value | {left[0]: deep(value[left[0]], left[1:])}
        return dataclasses.replace(value, **{left[0]: deep(getattr(value, left[0]), left[1:])})

    found = deep(config, names)
    assert isinstance(found, PerceiverConfig)
    return found


@pytest.mark.parametrize(
    ("architecture", "part", "changes", "told"),
    [
        (FOURIER, "", {"num_cross_attends": 2}, "num_cross_attends is 2, there 1"),
        (FOURIER, "", {"share_blocks": False}, "share_blocks is False, there True"),
        (FOURIER, "", {"mask_tokens": True}, "mask_tokens is True, there False"),
        (FOURIER, "inputs.image", {"width": 12}, "inputs.image.width is 12, there 8"),
        (
            FOURIER,
            "inputs.image.positions",
            {"max_resolution": (8, 8)},
            "inputs.image.positions.max_resolution is (8, 8), there (224, 224)",
        ),
        (FOURIER, "inputs.image", {"patch": 2}, "inputs.image.patch is 2, there 1"),
        (FOURIER, "decoder", {"query_residual": False}, "decoder.query_residual is False, there True"),
        (FOURIER, "decoder", {"output_width": 8}, "decoder.output_width is 8, there 0"),
        (
            FOURIER,
            "decoder",
            {"cross_attend": AttentionConfig(num_heads=2)},
            "decoder.cross_attend.num_heads is 2, there 1",
        ),
        (FOURIER, "outputs.label", {"query_width": 8}, "outputs.label.query_width is 8, there 0"),
        (FOURIER, "outputs", {"b": LabelOutput(pooling="query")}, "outputs.b has no counterpart there"),
        (FOURIER, "outputs.label", {"pooling": "mean"}, "outputs.label.pooling is mean, there query"),
        (
            LEARNED,
            "inputs.image.positions",
            {"learned_width": 8},
            "inputs.image.positions.learned_width is 8, there 256",
        ),
        (TEXT, "decoder.cross_attend", {"qk_width": 8}, "decoder.cross_attend.qk_width is 8, there 256"),
        (FLOW, "inputs.flow", {"separate_frames": True}, "inputs.flow.separate_frames is True, there False"),
        (MULTIMODAL, "", {"min_padding": 8}, "min_padding is 8, there 4"),
        (MULTIMODAL, "decoder", {"min_padding": 8}, "decoder.min_padding is 8, there 2"),
    ],
)
def test_what_decides_the_numbers_and_has_no_key_in_a_config_is_refused(
    architecture: str, part: str, changes: dict[str, Any], told: str
) -> None:
    config = config_from_hugging_face(said(architecture, d_model=16))
    assert config_from_hugging_face(config_to_hugging_face(config), side=8) == config
    # Its keys, as a user writes them, and no others.
    sentence = (
        rf"^{architecture} cannot express this network: model\.{re.escape(told)}; export it as ONNX \(--onnx\), or"
    )
    with pytest.raises(ValueError, match=sentence):
        config_to_hugging_face(altered(config, part, **changes))


def test_what_is_refused_goes_out_once_the_keys_that_were_named_are_changed() -> None:
    small = PositionsConfig(num_bands=8)
    config = PerceiverConfig(
        inputs={"image": ImageInput(height=8, width=8, num_channels=3, pixel_range="unit", positions=small)},
        outputs={"label": LabelOutput(num_classes=3)},
        num_cross_attends=2,
        num_blocks=1,
    )
    with pytest.raises(ValueError, match="cannot express this network: ") as refused:
        config_to_hugging_face(config)
    told = str(refused.value).partition("network: ")[2].split("; ")
    keys = {phrase.partition(" is ")[0].removeprefix("model.") for phrase in told[:-1]}
    for part, changes in (
        ("", {"num_cross_attends": 1}),
        ("decoder", {"query_residual": True}),
        ("outputs.label", {"pooling": "query"}),
        ("inputs.image.positions", {"num_bands": 64, "max_resolution": (224, 224)}),
    ):
        assert {f"{part}.{key}".removeprefix(".") for key in changes} <= keys
        keys -= {f"{part}.{key}".removeprefix(".") for key in changes}
        config = altered(config, part, **changes)
    assert not keys
    assert config_to_hugging_face(config)["architectures"] == [FOURIER]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"points": PointsInput(num_points=2_048)}, "no Perceiver that reads points alone"),
        ({"audio": AudioInput(num_samples=30_720)}, "no Perceiver that reads audio alone"),
        ({"image": ImageInput(height=224, width=224, conv_stem=True)}, "transformers pads this convolution otherwise"),
        (
            {"image": ImageInput(height=224, width=224), "text": TextInput(max_tokens=8)},
            "^PerceiverForMultimodalAutoencoding cannot express this network",
        ),
    ],
)
def test_a_network_of_no_architecture_is_refused(inputs: dict[str, Input], sentence: str) -> None:
    config = PerceiverConfig(inputs=inputs, outputs={"label": LabelOutput(pooling="query")})
    with pytest.raises(ValueError, match=sentence):
        config_to_hugging_face(config)


def test_attention_and_activation_go_out_as_they_came() -> None:
    values = {
        "qk_channels": 8,
        "v_channels": 12,
        "self_attention_widening_factor": 2,
        "hidden_act": "gelu",
        "cross_attention_widening_factor": 3,
        "num_cross_attention_heads": 2,
        "num_self_attention_heads": 4,
    }
    out = config_to_hugging_face(config_from_hugging_face(said(SEQUENCE, **values)))
    assert {key: out[key] for key in values} == values
    assert architecture_of(out) == SEQUENCE
    for name in ("gelu_new", "gelu_pytorch_tanh"):
        config = config_from_hugging_face(said(SEQUENCE, hidden_act=name))
        assert (config.gelu, config_to_hugging_face(config)["hidden_act"]) == ("tanh", "gelu_pytorch_tanh")
    plain = config_to_hugging_face(config_from_hugging_face(said(SEQUENCE)))
    assert (plain["qk_channels"], plain["v_channels"]) == (None, None)


def test_a_preprocessor_decides_the_range_of_pixels_and_the_side() -> None:
    config, state = to_hugging_face(Perceiver(config_from_hugging_face(said(FOURIER)), seed=0))
    config = json.loads(json.dumps(config))
    image = from_hugging_face(config, state, {"size": 12, "do_normalize": False}).config.inputs["image"]
    assert image is not None
    assert (image.shape, image.pixel_range, image.positions) == (
        (12, 12, 3),
        "unit",
        PositionsConfig(max_resolution=(224, 224)),
    )
    without = from_hugging_face(config, state).config.inputs["image"]
    assert without is not None
    assert without.pixel_range == "imagenet"
    words = Perceiver(config_from_hugging_face(said(SEQUENCE, d_model=16)), seed=0)
    assert from_hugging_face(*to_hugging_face(words), {"size": 12}).config == words.config


def test_a_config_of_more_layers_than_there_are_tensors_is_refused_before_anything_is_built() -> None:
    config, state = to_hugging_face(Perceiver(config_from_hugging_face(said(FOURIER)), seed=0))
    with pytest.raises(ValueError, match=f"^num_self_attends_per_block: 1048576, with {len(state)} tensors in all"):
        from_hugging_face(config | {"num_self_attends_per_block": 2**20}, state)
    # The same number of values in another shape.
    name = "perceiver.embeddings.latents"
    with pytest.raises(ValueError, match=rf"^{name}: expected \(4, 16\), got \(16, 4\)$"):
        from_hugging_face(config, state | {name: torch.zeros(16, 4)})
