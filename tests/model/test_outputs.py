"""What each kind of answer says of itself to the network: its target, queries and costs in a small network."""

from dataclasses import replace
from typing import Any

import pytest

from model.config.cost import Cost
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.array import ArrayInput
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput, StreamShape
from model.outputs.embedding import EmbeddingOutput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.masked import MaskedOutput
from model.outputs.output import Output
from model.outputs.points import PointsOutput
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput

BANDS = PositionsConfig(num_bands=2)
TABLE = PositionsConfig(kind="learned", learned_width=6, project_to=5)
NETWORK = PerceiverConfig(
    inputs={
        "image": ImageInput(height=4, width=6, patch=2, positions=BANDS),
        "sound": AudioInput(num_samples=12, patch=4, positions=BANDS),
        "text": TextInput(max_tokens=9, vocabulary=11, embedding_width=6),
        "bytes": TextInput(max_tokens=9, embedding_width=16),
        "field": ArrayInput(shape=(4, 6, 2), patch=(2, 3), positions=BANDS),
        "stream": ArrayInput(shape=(4, 6, 2), positions=BANDS),
        "frames": FlowInput(height=5, width=6, positions=BANDS),
        "coarse": FlowInput(height=5, width=6, conv_stem=True, positions=BANDS),
    },
    num_latents=4,
    latent_width=16,
)
WIDTH, NUM_ASKED = 10, 3
"""Channels and number of the decoded rows of which the cost of a head is asked."""
OUTPUTS: dict[str, tuple[str, Output]] = {
    "label": ("a", LabelOutput(num_classes=3, norm_mean=True)),
    "named label": ("a", LabelOutput(num_classes=3, target="b", pooling="query", query_width=7, hidden_layer=True)),
    "labels": ("a", LabelsOutput(num_classes=3, pooling="query")),
    "value": ("age", ValueOutput(num_values=2)),
    "named value": ("a", ValueOutput(target="age")),
    "embedding": ("a", EmbeddingOutput(pair=("image", "text"), width=5)),
    "image": ("image", GridOutput(positions=BANDS, train_queries=7)),
    "sound": ("sound", GridOutput(positions=TABLE)),
    "sound, queries of two samples": ("a", GridOutput(target="sound", shape=(6,), positions=BANDS, value_range=3.0)),
    "field": ("field", GridOutput(positions=BANDS, num_channels=1)),
    "a grid of no input": ("a", GridOutput(shape=(2, 3), num_channels=4, positions=BANDS)),
    "masked": ("image", MaskedOutput(fraction=0.5, positions=BANDS)),
    "masked, little": ("a", MaskedOutput(target="field", fraction=0.01, token_grid=(2, 4), positions=BANDS)),
    "text": ("text", TextOutput()),
    "text of tokens": ("a", TextOutput(target="text", queries_from="tokens", is_tied=False)),
    "motion": ("frames", FlowOutput()),
    "coarse motion": ("a", FlowOutput(target="coarse")),
    "motion of no input": ("a", FlowOutput()),
    "points": ("field", PointsOutput(coordinates="at", num_axes=3, num_channels=2, num_points=9, num_bands=2)),
    "some points": ("a", PointsOutput(target="b", coordinates="at", train_points=5)),
    "next token": ("text", AutoregressiveOutput()),
    "next byte": ("a", AutoregressiveOutput(target="bytes")),
    "next cell": ("stream", AutoregressiveOutput(num_levels=8)),
    "next of nothing": ("a", AutoregressiveOutput()),
}
SAID: dict[str, dict[str, Any]] = {
    "label": {
        "target": ("", (("label", ""),)),
        "queries": (0, 1, 1),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=53, flops=60)),
        "kept": 0,
        "points": (False, "", ""),
        "passes": ("", ()),
    },
    "named label": {
        "target": ("b", (("named label", "b"),)),
        "queries": (7, 1, 1),
        "costs": (Cost(parameters=7, flops=0), Cost(parameters=143, flops=260)),
        "kept": 0,
        "points": (False, "", ""),
        "passes": ("", ()),
    },
    "labels": {
        "target": ("", (("labels", ""),)),
        "queries": (16, 1, 1),
        "costs": (Cost(parameters=16, flops=0), Cost(parameters=33, flops=60)),
        "kept": 0,
        "points": (False, "", ""),
        "passes": ("", ()),
    },
    "value": {
        "target": ("age", (("value", "age"),)),
        "queries": (0, 1, 1),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=22, flops=40)),
        "kept": 0,
        "points": (False, "", ""),
        "passes": ("", ()),
    },
    "named value": {
        "target": ("age", (("value", "age"),)),
        "queries": (0, 1, 1),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=11, flops=20)),
        "kept": 0,
        "points": (False, "", ""),
        "passes": ("", ()),
    },
    "embedding": {
        "target": ("", (("input", "image"), ("input", "text"))),
        "queries": (0, 1, 1),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=56, flops=100)),
        "kept": 0,
        "points": (False, "", ""),
        "passes": ("", ("image", "text")),
    },
    "image": {
        "target": ("image", (("input", "image"),)),
        "queries": (10, 24, 7),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=33, flops=180)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "sound": {
        "target": ("sound", (("input", "sound"),)),
        "queries": (5, 3, 3),
        "costs": (Cost(parameters=53, flops=0), Cost(parameters=44, flops=240)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "sound, queries of two samples": {
        "target": ("sound", (("input", "sound"),)),
        "queries": (5, 6, 6),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=22, flops=120)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "field": {
        "target": ("field", (("input", "field"),)),
        "queries": (10, 24, 24),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=11, flops=60)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "a grid of no input": {
        "target": ("a", (("input", "a"),)),
        "queries": (10, 6, 6),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=44, flops=240)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "masked": {
        "target": ("image", (("input", "image"),)),
        "queries": (10, 24, 24),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=33, flops=180)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "masked, little": {
        "target": ("field", (("input", "field"),)),
        "queries": (10, 24, 24),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=22, flops=120)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "text": {
        "target": ("text", (("hidden words", "text"),)),
        "queries": (6, 9, 9),
        "costs": (Cost(parameters=54, flops=0), Cost(parameters=11, flops=660)),
        "kept": 0,
        "points": (False, "", "text"),
        "passes": ("", ()),
    },
    "text of tokens": {
        "target": ("text", (("hidden words", "text"),)),
        "queries": (6, 9, 9),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=121, flops=660)),
        "kept": 0,
        "points": (False, "", "text"),
        "passes": ("", ()),
    },
    "motion": {
        "target": ("frames", (("motion", "frames"),)),
        "queries": (78, 30, 30),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=22, flops=120)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "coarse motion": {
        "target": ("coarse", (("motion", "coarse"),)),
        "queries": (78, 4, 4),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=13126, flops=79608)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "motion of no input": {
        "target": ("a", (("motion", "a"),)),
        "queries": (78, 0, 0),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=22, flops=120)),
        "kept": 0,
        "points": (True, "", ""),
        "passes": ("", ()),
    },
    "points": {
        "target": ("field", (("input", "field"), ("input", "at"))),
        "queries": (15, 9, 9),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=22, flops=120)),
        "kept": 0,
        "points": (False, "at", ""),
        "passes": ("", ()),
    },
    "some points": {
        "target": ("b", (("input", "b"), ("input", "at"))),
        "queries": (130, 1024, 5),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=11, flops=60)),
        "kept": 0,
        "points": (False, "at", ""),
        "passes": ("", ()),
    },
    "next token": {
        "target": ("text", (("input", "text"),)),
        "queries": (0, 4, 4),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=97, flops=1008)),
        "kept": 192,
        "points": (False, "", ""),
        "passes": ("text", ()),
    },
    "next byte": {
        "target": ("bytes", (("input", "bytes"),)),
        "queries": (0, 4, 4),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=458, flops=34816)),
        "kept": 2240,
        "points": (False, "", ""),
        "passes": ("bytes", ()),
    },
    "next cell": {
        "target": ("stream", (("input", "stream"),)),
        "queries": (0, 4, 4),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=196, flops=1280)),
        "kept": 208,
        "points": (False, "", ""),
        "passes": ("stream", ()),
    },
    "next of nothing": {
        "target": ("a", (("input", "a"),)),
        "queries": (0, 4, 4),
        "costs": (Cost(parameters=0, flops=0), Cost(parameters=20, flops=0)),
        "kept": 80,
        "points": (False, "", ""),
        "passes": ("a", ()),
    },
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_an_answer_says_of_itself(name: str) -> None:
    own_name, given = OUTPUTS[name]
    output = given.named(own_name, NETWORK)
    said = {
        "target": (output.target, output.wanted()),
        "queries": (output.own_width(NETWORK), output.num_queries(NETWORK), output.num_trained(NETWORK)),
        "costs": (output.queries_cost(NETWORK), output.head_cost(WIDTH, NUM_ASKED, NETWORK)),
        "kept": output.kept_by_head(WIDTH, NETWORK),
        "points": (output.answers_points(), output.asked_at(), output.asks_along()),
        "passes": (output.continues(), output.views()),
    }
    assert said == SAID[name]


def test_a_grid_takes_its_shape_and_range_from_its_input() -> None:
    found = {name: OUTPUTS[name][1].named(OUTPUTS[name][0], NETWORK) for name in OUTPUTS}
    grids = {
        name: (each.shape, each.num_channels, each.value_range)
        for name, each in found.items()
        if isinstance(each, GridOutput | MaskedOutput)
    }
    assert grids == {
        "image": ((4, 6), 3, 1.0),
        "sound": ((3,), 4, 2.0),
        "sound, queries of two samples": ((6,), 2, 3.0),
        "field": ((4, 6), 1, 0.0),
        "a grid of no input": ((2, 3), 4, 0.0),
        "masked": ((4, 6), 3, 1.0),
        "masked, little": ((4, 6), 2, 0.0),
    }
    masked, little = found["masked"], found["masked, little"]
    assert isinstance(masked, MaskedOutput)
    assert isinstance(little, MaskedOutput)
    assert (masked.token_grid, masked.num_hidden) == ((2, 3), 3)
    assert (little.token_grid, little.num_hidden) == ((2, 4), 1)


def test_a_stream_has_the_sizes_of_its_input_and_bits_of_its_unit() -> None:
    found = {}
    for name in ("next token", "next byte", "next cell", "next of nothing"):
        output = OUTPUTS[name][1].named(OUTPUTS[name][0], NETWORK)
        assert isinstance(output, AutoregressiveOutput)
        found[name] = (output.stream, output.unit)
    assert found == {
        "next token": (StreamShape(num_latents=4, num_places=9, places_of_entry=1, num_ids=11), "token"),
        "next byte": (StreamShape(num_latents=4, num_places=9, places_of_entry=1, num_ids=262), "byte"),
        "next cell": (StreamShape(num_latents=4, num_places=24, places_of_entry=6, num_channels=2), "element"),
        "next of nothing": (StreamShape(), "token"),
    }


PART: dict[str, Any] = {"coordinates": "at", "target": "b"}


@pytest.mark.parametrize(
    ("output", "keys"),
    [
        (AutoregressiveOutput(prefix_dropout=0.99, num_levels=2), []),
        (AutoregressiveOutput(prefix_dropout=1.0), ["prefix_dropout"]),
        (AutoregressiveOutput(prefix_dropout=-0.1), ["prefix_dropout"]),
        (AutoregressiveOutput(num_levels=1), ["num_levels"]),
        (AutoregressiveOutput(lowest=1.0), ["highest"]),
        (AutoregressiveOutput(lowest=float("-inf")), ["highest"]),
        (AutoregressiveOutput(highest=float("inf")), ["highest"]),
        (AutoregressiveOutput(stream=StreamShape(num_ids=3)), ["stream"]),
        (AutoregressiveOutput(loss_weight=-1.0), ["loss_weight"]),
        (EmbeddingOutput(pair=("a", "b"), temperature=0.01), []),
        (EmbeddingOutput(pair=("a", "b"), temperature=float("inf")), ["temperature"]),
        (EmbeddingOutput(pair=("a", "b", "c")), ["pair"]),
        (EmbeddingOutput(pair=("a", "b"), target="c"), ["target"]),
        (EmbeddingOutput(pair=("a", "b"), loss_weight=-1.0), ["loss_weight"]),
        (ValueOutput(huber_delta=0.0), ["huber_delta"]),
        (ValueOutput(scale=float("inf")), ["scale"]),
        (ValueOutput(loss_weight=-1.0), ["loss_weight"]),
        (MaskedOutput(fraction=1.0), []),
        (MaskedOutput(fraction=1.1), ["fraction"]),
        (MaskedOutput(loss_weight=-1.0), ["loss_weight"]),
        (GridOutput(value_range=-1.0), ["value_range"]),
        (PointsOutput(max_frequency=1.0, **PART), []),
        (PointsOutput(max_frequency=float("inf"), **PART), ["max_frequency"]),
        (PointsOutput(num_points=0, **PART), ["num_points"]),
        (PointsOutput(num_bands=0, num_channels=0, **PART), ["num_channels", "num_bands"]),
        (PointsOutput(train_points=-1, **PART), ["train_points"]),
        (PointsOutput(loss_weight=-1.0, **PART), ["loss_weight"]),
        (LabelsOutput(num_classes=0), ["num_classes"]),
        (LabelsOutput(loss_weight=-1.0), ["loss_weight"]),
        (LabelOutput(num_classes=2, class_weights=(float("inf"), 1.0)), ["class_weights"]),
    ],
)
def test_a_problem_of_an_answer_names_its_key(output: Output, keys: list[str]) -> None:
    assert [key for key, _ in output.problems()] == keys


@pytest.mark.parametrize(
    ("output", "name", "shape", "keys"),
    [
        (GridOutput(shape=(4, 6), num_channels=3), "image", (4, 6, 3), []),
        (GridOutput(shape=(4, 6), num_channels=3), "image", (4, 6, 1), ["shape"]),
        (GridOutput(shape=(3,), num_channels=4), "sound", (12,), []),
        (GridOutput(shape=(3,), num_channels=4), "sound", (13,), ["shape"]),
        (GridOutput(shape=(3,), num_channels=4), "sound", (12, 1), ["shape"]),
        (PointsOutput(coordinates="at", num_axes=1, num_channels=1), "at", (9,), []),
        (PointsOutput(coordinates="at", num_axes=1, num_channels=1), "field", (9,), []),
        (PointsOutput(coordinates="at", num_axes=2, num_channels=2), "field", (9, 2, 2), ["num_channels"]),
        (LabelOutput(), "image", (4, 6, 3), []),
    ],
)
def test_an_answer_goes_together_with_the_shape_of_its_input(
    output: Output, name: str, shape: tuple[int, ...], keys: list[str]
) -> None:
    assert [key for key, _ in output.input_problems(name, shape)] == keys


FRAMES = {"frames": NETWORK.inputs["frames"]}
TEXT = {"text": NETWORK.inputs["text"]}
BESIDE = DecoderConfig(min_padding=0)


@pytest.mark.parametrize(
    ("inputs", "change", "name", "output", "keys"),
    [
        (FRAMES, {}, "frames", FlowOutput(), []),
        (FRAMES | TEXT, {}, "frames", FlowOutput(), [""]),
        (TEXT, {}, "text", FlowOutput(), [""]),
        (TEXT, {}, "text", TextOutput(), []),
        (TEXT, {"decoder": replace(BESIDE, output_width=6)}, "text", TextOutput(), [""]),
        (TEXT, {"decoder": replace(BESIDE, output_width=6)}, "text", TextOutput(is_tied=False), []),
        (FRAMES, {}, "frames", TextOutput(is_tied=False), [""]),
        (TEXT, {}, "text", AutoregressiveOutput(), []),
        (TEXT, {"num_latents": 9}, "text", AutoregressiveOutput(), []),
        (TEXT, {"num_latents": 10}, "text", AutoregressiveOutput(), [""]),
        (TEXT, {"mask_tokens": True}, "text", AutoregressiveOutput(), [""]),
        (TEXT, {}, "other", AutoregressiveOutput(), ["target"]),
        (FRAMES, {}, "frames", AutoregressiveOutput(), ["target"]),
        ({"s": ArrayInput(shape=(8, 2), positions=BANDS)}, {}, "s", AutoregressiveOutput(), []),
        ({"s": ArrayInput(shape=(8, 2), patch=(2,))}, {}, "s", AutoregressiveOutput(), ["target"]),
        ({"s": ArrayInput(shape=(8, 2), num_axes=1)}, {}, "s", AutoregressiveOutput(), ["target"]),
        ({"s": ArrayInput(shape=(2, 8), axes=("channel", "t"))}, {}, "s", AutoregressiveOutput(), ["target"]),
        ({"i": NETWORK.inputs["image"]}, {"mask_tokens": True}, "i", MaskedOutput(positions=BANDS), []),
        ({"i": NETWORK.inputs["image"]}, {}, "i", MaskedOutput(positions=BANDS), [""]),
        ({"i": NETWORK.inputs["image"]}, {}, "i", GridOutput(train_queries=24), []),
        ({"i": NETWORK.inputs["image"]}, {}, "i", GridOutput(train_queries=25), ["train_queries"]),
        (FRAMES | TEXT, {}, "a", EmbeddingOutput(pair=("frames", "text")), []),
        (FRAMES | TEXT, {}, "a", EmbeddingOutput(pair=("frame", "word")), ["pair", "pair"]),
    ],
)
def test_what_a_network_cannot_answer_names_its_key(
    inputs: dict[str, Any], change: dict[str, Any], name: str, output: Output, keys: list[str]
) -> None:
    network = replace(NETWORK, inputs=inputs, outputs={name: output}, **change)
    found = output.named(name, network)
    assert [key for key, _ in found.network_problems(network)] == keys
