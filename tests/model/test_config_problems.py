"""What a configuration of a network must not be, key by key, and the least that it may be."""

import dataclasses
from math import inf, nan
from typing import Any

import pytest

from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.masked import MaskedOutput
from model.outputs.points import PointsOutput
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput

IMAGE = {"image": ImageInput(height=224, width=224)}
LABEL = {"label": LabelOutput()}


def image(**fields: Any) -> dict[str, Any]:  # noqa: ANN401  # any field
    return {"inputs": {"image": ImageInput(**{"height": 224, "width": 224, **fields})}}


def positions(**fields: Any) -> dict[str, Any]:  # noqa: ANN401  # any field
    return image(positions=PositionsConfig(**fields))


def label(**fields: Any) -> dict[str, Any]:  # noqa: ANN401  # any field
    return {"outputs": {"label": LabelOutput(**fields)}}


def grid(**fields: Any) -> dict[str, Any]:  # noqa: ANN401  # any field
    return {"outputs": {"image": GridOutput(**{"shape": (2, 3), **fields})}}


def named(*names: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401  # any field
    return {"outputs": {"label": LabelOutput(), **dict.fromkeys(names, LabelOutput(**fields))}}


ASKED = LabelOutput(pooling="query")
TEXT = {"inputs": {"text": TextInput(max_tokens=2_048)}, "outputs": {"text": TextOutput()}}
PAIR = {"inputs": {"flow": FlowInput(height=368, width=496)}, "outputs": {"flow": FlowOutput()}}


def changed(change: dict[str, Any]) -> PerceiverConfig:
    return dataclasses.replace(PerceiverConfig(inputs=IMAGE, outputs=LABEL), **change)


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"inputs": {}}, ["inputs"]),
        (image(height=0), ["inputs.image.height"]),
        (image(height=30, patch=4), ["inputs.image.height"]),
        (image(width=30, patch=4), ["inputs.image.width"]),
        (image(project_to=-1), ["inputs.image.project_to"]),
        (image(conv_stem=True, patch=2), ["inputs.image.patch"]),
        (image(num_channels=4, pixel_range="imagenet"), ["inputs.image.pixel_range"]),
        (positions(max_resolution=(8,)), ["inputs.image.positions.max_resolution"]),
        (positions(max_resolution=(8, 1)), ["inputs.image.positions.max_resolution"]),
        (positions(num_bands=0), ["inputs.image.positions.num_bands"]),
        (positions(kind="learned", learned_width=0), ["inputs.image.positions.learned_width"]),
        (positions(kind="learned", project_to=-1), ["inputs.image.positions.project_to"]),
        (
            {"inputs": {"video": VideoInput(height=224, width=224, num_frames=3, patch_frames=2)}},
            ["inputs.video.num_frames"],
        ),
        ({"inputs": {"video": VideoInput(num_frames=16, width=224, height=6)}}, ["inputs.video.height"]),
        ({"inputs": {"video": VideoInput(num_frames=16, height=224, width=6)}}, ["inputs.video.width"]),
        (
            {
                "inputs": {
                    "video": VideoInput(num_frames=16, height=224, width=224, num_channels=1, pixel_range="imagenet")
                }
            },
            ["inputs.video.pixel_range"],
        ),
        (
            {
                "inputs": {
                    "video": VideoInput(
                        num_frames=16, height=224, width=224, positions=PositionsConfig(max_resolution=(4, 4))
                    )
                }
            },
            ["inputs.video.positions.max_resolution"],
        ),
        (
            {**PAIR, "inputs": {"flow": FlowInput(height=368, width=496, num_channels=1, pixel_range="imagenet")}},
            ["inputs.flow.pixel_range"],
        ),
        ({"inputs": {"audio": AudioInput(num_samples=30, patch=4)}}, ["inputs.audio.num_samples"]),
        ({"inputs": {"points": PointsInput(num_points=2_048, max_frequency=0.5)}}, ["inputs.points.max_frequency"]),
        ({"inputs": {"points": PointsInput(num_points=2_048, max_frequency=inf)}}, ["inputs.points.max_frequency"]),
        ({"inputs": {"text": TextInput(max_tokens=2_048, vocabulary=0)}}, ["inputs.text.vocabulary"]),
        *(({name: 0}, [name]) for name in ("num_latents", "latent_width", "num_cross_attends")),
        *(({name: 0}, [name]) for name in ("layers_per_block", "recompute_every_blocks")),
        *(({name: -1}, [name]) for name in ("num_blocks", "min_padding")),
        ({"num_cross_attends": 100_001}, ["num_cross_attends"]),
        ({"num_blocks": 10_001, "layers_per_block": 10}, ["num_blocks"]),
        ({"latent_width": 100}, ["self_attend.num_heads"]),
        ({"cross_attend": AttentionConfig(num_heads=2)}, ["cross_attend.num_heads"]),
        ({"cross_attend": AttentionConfig(num_heads=0)}, ["cross_attend.num_heads"]),
        ({"cross_attend": AttentionConfig(mlp_ratio=0)}, ["cross_attend.mlp_ratio"]),
        ({"cross_attend": AttentionConfig(num_heads=2, qk_width=7)}, ["cross_attend.qk_width"]),
        ({"cross_attend": AttentionConfig(qk_width=-8)}, ["cross_attend.qk_width"]),
        ({"cross_attend": AttentionConfig(value_width=-8)}, ["cross_attend.value_width"]),
        (
            {
                "outputs": {"label": ASKED},
                "decoder": DecoderConfig(cross_attend=AttentionConfig(num_heads=3)),
            },
            ["decoder.cross_attend.num_heads"],
        ),
        (
            {"cross_attend": AttentionConfig(num_heads=3, qk_width=6), "cross_attend_form": "absorbed"},
            ["cross_attend_form"],
        ),
        ({"outputs": {}}, ["outputs"]),
        (label(num_classes=0), ["outputs.label.num_classes"]),
        (label(query_width=-1, pooling="query"), ["outputs.label.query_width"]),
        (label(query_width=8), ["outputs.label.query_width"]),
        (label(hidden_layer=True), ["outputs.label.hidden_layer"]),
        (label(loss_weight=-1.0), ["outputs.label.loss_weight"]),
        (label(loss_weight=nan), ["outputs.label.loss_weight"]),
        (named("a", "b", num_classes=0), ["outputs.a.num_classes", "outputs.b.num_classes"]),
        (named("", "x.y", "a"), ["outputs", "outputs"]),
        ({"outputs": {"other": GridOutput()}}, ["outputs.other.shape"]),
        ({"outputs": {"other": GridOutput(shape=(2, 3))}}, ["outputs.other.shape"]),
        ({"outputs": {"near": EmbeddingOutput(pair=("image",))}}, ["outputs.near.pair"]),
        ({"outputs": {"near": EmbeddingOutput(pair=("image", "image"))}}, ["outputs.near.pair"]),
        ({"outputs": {"near": EmbeddingOutput(pair=("image", "voice"))}}, ["outputs.near.pair"]),
        ({"outputs": {"near": EmbeddingOutput(pair=("image", "a"), temperature=0.001)}}, ["outputs.near.temperature"]),
        ({"outputs": {"near": EmbeddingOutput(pair=("image", "a"), width=0)}}, ["outputs.near.width"]),
        ({"outputs": {"image": MaskedOutput()}}, ["outputs.image"]),
        ({"outputs": {"image": MaskedOutput(fraction=0.0)}, "mask_tokens": True}, ["outputs.image.fraction"]),
        ({"outputs": {"image": MaskedOutput(shape=(9,))}, "mask_tokens": True}, ["outputs.image.shape"]),
        ({"outputs": {"a": MaskedOutput(shape=(9, 9), num_channels=3)}, "mask_tokens": True}, ["outputs.a.target"]),
        ({"outputs": {"field": PointsOutput()}}, ["outputs.field.coordinates"]),
        ({"outputs": {"field": PointsOutput(coordinates="at", num_axes=0)}}, ["outputs.field.num_axes"]),
        ({"outputs": {"field": PointsOutput(coordinates="at", max_frequency=0.5)}}, ["outputs.field.max_frequency"]),
        ({"outputs": {"age": ValueOutput(num_values=0)}}, ["outputs.age.num_values"]),
        ({"outputs": {"age": ValueOutput(scale=0.0)}}, ["outputs.age.scale"]),
        ({"outputs": {"age": ValueOutput(offset=nan)}}, ["outputs.age.offset"]),
        ({"outputs": {"age": ValueOutput(huber_delta=inf)}}, ["outputs.age.huber_delta"]),
        ({"outputs": {"tags": LabelsOutput(target="tags")}}, ["outputs.tags.target"]),
        ({"outputs": {"tags": LabelsOutput(num_classes=2, class_weights=(1.0, -1.0))}}, ["outputs.tags.class_weights"]),
        (label(num_classes=2, class_weights=(1.0,)), ["outputs.label.class_weights"]),
        (label(num_classes=2, class_weights=(0.0, 0.0)), ["outputs.label.class_weights"]),
        (grid(shape=(2, 0)), ["outputs.image.shape"]),
        (grid(num_channels=-1), ["outputs.image.num_channels"]),
        (grid(loss_weight=-1.0), ["outputs.image.loss_weight"]),
        (grid(train_queries=-1), ["outputs.image.train_queries"]),
        (grid(train_queries=7), ["outputs.image.train_queries"]),
        (grid(positions=PositionsConfig(kind="none")), ["outputs.image.positions.kind"]),
        (grid(positions=PositionsConfig(num_bands=0)), ["outputs.image.positions.num_bands"]),
        ({**TEXT, "outputs": {"text": TextOutput(loss_weight=-1.0)}}, ["outputs.text.loss_weight"]),
        *(
            ({**PAIR, "outputs": {"flow": FlowOutput(rescale=rescale)}}, ["outputs.flow.rescale"])
            for rescale in (0.0, -1.0, inf)
        ),
        ({**PAIR, "outputs": {"flow": FlowOutput(loss_weight=-1.0)}}, ["outputs.flow.loss_weight"]),
        ({"outputs": {"text": TextOutput()}}, ["outputs.text"]),
        ({**TEXT, "outputs": {"text": TextOutput(), "label": ASKED}}, ["outputs.text"]),
        ({**TEXT, "decoder": DecoderConfig(output_width=8)}, ["outputs.text"]),
        ({"outputs": {"flow": FlowOutput()}}, ["outputs.flow"]),
        (
            {**PAIR, "inputs": {"flow": FlowInput(height=368, width=496), "label": LabelInput()}},
            ["outputs.flow"],
        ),
        ({"decoder": DecoderConfig(output_width=8)}, ["decoder.output_width"]),
        ({"decoder": DecoderConfig(output_width=-1)}, ["decoder.output_width"]),
        ({"decoder": DecoderConfig(min_padding=-1)}, ["decoder.min_padding"]),
    ],
)
def test_a_problem_names_its_key_and_no_other(change: dict[str, Any], keys: list[str]) -> None:
    assert [found for found, _ in changed(change).problems()] == keys


@pytest.mark.parametrize(
    "change",
    [
        positions(num_bands=1, max_resolution=(2, 2)),
        positions(kind="learned", learned_width=1, num_bands=0),
        positions(kind="none", num_bands=0, learned_width=0),
        positions(learned_width=0),
        image(height=30, width=28, patch=2, num_channels=1, pixel_range="centred"),
        image(conv_stem=True, height=30, width=27),
        {"inputs": {"points": PointsInput(num_points=1, num_bands=1, max_frequency=1.0)}},
        {"inputs": {"spectrogram": AudioInput(num_samples=1, num_channels=1, patch=1, patch_bins=1)}},
        label(num_classes=1, loss_weight=0.0),
        label(pooling="query", query_width=1, hidden_layer=True),
        named("a", "zebra"),
        grid(shape=(1,), num_channels=1, loss_weight=0.0, train_queries=1),
        grid(shape=(2, 3), train_queries=6),
        grid(shape=()),
        label(num_classes=2, class_weights=(0.0, 3.0)),
        {**PAIR, "outputs": {"flow": FlowOutput(rescale=0.5, loss_weight=0.0)}},
        {**PAIR, "outputs": {"flow": FlowOutput(rescale=1.0)}},
        TEXT,
        {"num_latents": 1, "latent_width": 8, "num_cross_attends": 1, "layers_per_block": 1, "num_blocks": 0},
        {"min_padding": 0, "recompute_every_blocks": 2},
        {"num_cross_attends": 100_000, "num_blocks": 10_000, "layers_per_block": 10},
        {"cross_attend": AttentionConfig(num_heads=2, qk_width=2, value_width=4), "cross_attend_form": "plain"},
        {"decoder": DecoderConfig(min_padding=0), "outputs": {"label": ASKED}},
        {"decoder": DecoderConfig(output_width=1), "outputs": {"label": ASKED}},
        # A decoder that nothing asks need not fit.
        {"decoder": DecoderConfig(cross_attend=AttentionConfig(num_heads=3))},
    ],
)
def test_the_least_that_makes_sense_is_allowed(change: dict[str, Any]) -> None:
    assert list(changed(change).problems()) == []
