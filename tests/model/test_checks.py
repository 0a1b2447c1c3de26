"""Bad batches are refused by the name of the field, with what was expected and what came."""

import dataclasses
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checks import check_inputs, check_lengths, check_names, listed
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.outputs.label import LabelOutput
from model.outputs.points import PointsOutput
from model.perceiver import Perceiver

CONFIG = PerceiverConfig(
    inputs={
        "image": ImageInput(height=4, width=4),
        "points": PointsInput(num_points=5),
        "text": TextInput(max_tokens=8, embedding_width=16),
    },
    outputs={"label": LabelOutput(num_classes=2)},
    num_latents=4,
    latent_width=16,
    num_cross_attends=1,
    num_blocks=1,
    layers_per_block=1,
)
GOOD = {
    "image": torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
    "points": torch.zeros(2, 5, 3),
    "text": torch.zeros(2, 8, dtype=torch.int16),
}


def nan_at_second() -> Tensor:
    points = torch.zeros(2, 5, 3)
    points[1, 2, 0] = torch.nan
    return points


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("image", torch.zeros(2, 4, 5, 3), r"inputs\.image: expected \(batch, 4, 4, 3\), got \(2, 4, 5, 3\)"),
        (
            "text",
            torch.zeros(2, 9, dtype=torch.int16),
            r"inputs\.text: expected \(batch, 8\) or fewer places, .* the table of positions has rows, got \(2, 9\)",
        ),
        ("text", torch.full((2, 8), 262), r"inputs\.text: expected ids from 0 to 261, got 262 to 262"),
        ("points", nan_at_second(), r"inputs\.points: expected finite numbers, samples \[1\] hold NaN or infinity"),
    ],
)
def test_a_bad_value_is_refused(name: str, value: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Perceiver(CONFIG, seed=0)({**GOOD, name: value})


def test_finite_numbers_are_read_though_their_sum_has_no_place_in_single_precision() -> None:
    largest = torch.finfo(torch.float32).max
    check_inputs(CONFIG, {**GOOD, "points": torch.full_like(GOOD["points"], largest)})


READS_LABEL = dataclasses.replace(CONFIG, inputs={"label": LabelInput(num_classes=3)})
READS_TEXT = dataclasses.replace(CONFIG, inputs={"text": TextInput(max_tokens=8, embedding_width=16)})


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        (READS_LABEL, [-1, 0, 2]),
        (READS_TEXT, [[0, 261], [1, 2]]),
        (READS_TEXT, [[0] * 8]),
        # No sample has a place for text.
        (READS_TEXT, [[], []]),
    ],
)
def test_the_least_and_the_largest_ids_are_read(config: PerceiverConfig, ids: list[Any]) -> None:
    check_inputs(config, dict.fromkeys(config.ordered_inputs, torch.tensor(ids, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("config", "ids", "sentence"),
    [
        (READS_LABEL, [-2, 0], "expected ids from -1 to 2, got -2 to 0"),
        (READS_LABEL, [0, 3], "expected ids from -1 to 2, got 0 to 3"),
        (READS_LABEL, [[0]], r"expected \(batch, \), got \(1, 1\)"),
        (READS_TEXT, [[-1, 0]], "expected ids from 0 to 261, got -1 to 0"),
        (READS_TEXT, [1, 2], r"expected \(batch, 8\) or fewer places, .*, got \(2,\)"),
        (READS_TEXT, [[[1]]], r"expected \(batch, 8\) or fewer places, .*, got \(1, 1, 1\)"),
    ],
)
def test_ids_beyond_them_are_refused(config: PerceiverConfig, ids: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^inputs\.(label|text): {sentence}$"):
        check_inputs(config, dict.fromkeys(config.ordered_inputs, torch.tensor(ids)))


def test_whatever_is_wrong_with_a_batch_is_said_in_one_go() -> None:
    points = torch.zeros(3, 5, 3)
    points[0, 0, 0], points[2, 4, 2] = torch.inf, -torch.inf
    bad = {"image": torch.zeros(3, 4, 4, 1), "points": points, "text": torch.full((3, 8), 262)}
    with pytest.raises(
        ValueError, match=r"^inputs\.image: .*; inputs\.points: .* samples \[0, 2\] hold .*; inputs\.text"
    ):
        check_inputs(CONFIG, bad)
    # Bytes of an image may have any value.
    check_inputs(CONFIG, {**GOOD, "image": torch.full((2, 4, 4, 3), 255, dtype=torch.uint8)})
    check_inputs(CONFIG, GOOD, {name: torch.tensor([1, 0]) for name in GOOD})


def test_names_are_told_in_their_order_and_equal_ones_pass() -> None:
    check_names("here", ["b", "a"], ["a", "b"])
    expected, found = [f"m{i}" for i in range(9)], [f"s{i}" for i in range(9)]
    with pytest.raises(ValueError, match=rf"^here: missing {', '.join(expected)}; surplus {', '.join(found)}$"):
        check_names("here", reversed(expected), reversed(found))
    with pytest.raises(ValueError, match=r"^here: missing nothing; surplus b$"):
        check_names("here", ["a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"^here: missing m000, .*, m019, and 280 more; surplus nothing$"):
        check_names("here", [f"m{i:03}" for i in range(300)], [])


def test_every_missing_modality_is_named() -> None:
    with pytest.raises(ValueError, match=r"inputs\.image: .*; inputs\.points: "):
        Perceiver(CONFIG, seed=0)({"text": GOOD["text"]})


def test_lengths_are_one_count_a_sample_of_every_modality() -> None:
    counts = {"image": torch.tensor([4, 4]), "points": torch.tensor([5])}
    sentence = (
        r"lengths\.points: expected \(2,\), got \(1,\); lengths\.text: expected \(2,\), got none; .*image.*points"
    )
    with pytest.raises(ValueError, match=sentence):
        Perceiver(CONFIG, seed=0)(GOOD, counts)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"self_attend": AttentionConfig(num_heads=3)},
            r"^self_attend\.num_heads: must divide 16, the channels of a latent vector; change it, or set qk_width",
        ),
        (
            {"cross_attend": AttentionConfig(num_heads=2, qk_width=4, value_width=7)},
            r"cross_attend\.value_width: must be a positive multiple of num_heads \(2\), got 7",
        ),
        (
            {
                "outputs": {"label": LabelOutput(num_classes=2, pooling="query")},
                "decoder": DecoderConfig(cross_attend=AttentionConfig(num_heads=5)),
            },
            r"^decoder\.cross_attend\.num_heads: must divide 16, the channels of a latent vector; change it",
        ),
    ],
)
def test_channels_that_heads_do_not_divide_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Perceiver(dataclasses.replace(CONFIG, **change), seed=0)


def test_every_tensor_that_a_state_dict_lacks_or_has_too_many_is_named() -> None:
    network = Perceiver(CONFIG, seed=0)
    state = network.state_dict()
    latents, bias = state.pop("encoder.latents.weight"), state.pop("decoder.means.label.logits.bias")
    sentence = "the state dict: missing decoder.means.label.logits.bias, encoder.latents.weight; surplus other, wrong"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        network.load_state_dict({**state, "wrong": bias, "other": bias})
    shorter = {**state, "encoder.latents.weight": latents[1:], "decoder.means.label.logits.bias": bias}
    shorter["inputs.adapters.text.places.weight"] = state["inputs.adapters.text.places.weight"][:5]
    with pytest.raises(ValueError, match=re.escape("encoder.latents.weight: expected (4, 16), got (3, 16)")):
        network.load_state_dict(shorter)
    # A table of positions for fewer tokens than the network reads.
    with pytest.raises(ValueError, match=re.escape("text.places.weight: expected (8, 16), got (5, 16)")):
        network.load_state_dict(shorter)


def test_samples_without_any_token_are_named() -> None:
    check_lengths({"image": torch.tensor([4, 0]), "text": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match="samples 1 have none"):
        check_lengths({"image": torch.tensor([4, 0]), "text": torch.tensor([0, 0])})


def test_a_network_without_modalities_is_refused() -> None:
    with pytest.raises(ValueError, match="inputs: no input is set"):
        Perceiver(dataclasses.replace(CONFIG, inputs={}), seed=0)


ASKED = dataclasses.replace(
    CONFIG,
    inputs={"points": PointsInput(num_points=5)},
    outputs={
        "a": LabelOutput(num_classes=2),
        "b": PointsOutput(coordinates="here", num_axes=2),
        "c": PointsOutput(coordinates="there", num_axes=3),
        "d": LabelOutput(num_classes=2),
    },
)
PLACES = {"points": torch.zeros(2, 5, 3), "here": torch.zeros(2, 4, 2), "there": torch.zeros(2, 1, 3)}


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({}, []),
        ({"here": torch.zeros(2, 0, 2)}, []),
        ({"here": None}, ["inputs.here: expected the places at which b is asked, got none"]),
        (
            {"here": None, "there": torch.zeros(2, 1, 2)},
            [
                "inputs.here: expected the places at which b is asked, got none",
                "inputs.there: expected (batch, places, 3), got (2, 1, 2)",
            ],
        ),
        ({"here": torch.zeros(2, 4)}, ["inputs.here: expected (batch, places, 2), got (2, 4)"]),
        ({"here": torch.zeros(2, 4, 2, 2)}, ["inputs.here: expected (batch, places, 2), got (2, 4, 2, 2)"]),
        (
            {"there": torch.full((2, 1, 3), torch.nan)},
            ["inputs.there: expected finite numbers, samples [0, 1] hold NaN or infinity"],
        ),
        # A look at values on a device would wait for it.
        ({"there": torch.empty(2, 1, 3, device="meta")}, []),
    ],
)
def test_places_at_which_outputs_are_asked_are_checked(change: dict[str, Tensor | None], problems: list[str]) -> None:
    inputs = {name: value for name, value in (PLACES | change).items() if value is not None}
    if not problems:
        check_inputs(ASKED, inputs)
        return
    with pytest.raises(ValueError, match=f"^{re.escape('; '.join(problems))}$"):
        check_inputs(ASKED, inputs)


def test_values_are_not_looked_at_while_they_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {name: torch.full_like(value, torch.nan) for name, value in PLACES.items()}
    with pytest.raises(ValueError, match=r"^inputs\.points: .*; inputs\.here: .*; inputs\.there: "):
        check_inputs(ASKED, broken)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    check_inputs(ASKED, broken)


def test_twenty_names_are_listed_and_of_more_how_many_there_are() -> None:
    words = [str(number) for number in range(21)]
    assert listed(words[:20], " ") == " ".join(words[:20])
    assert listed(words, " ") == " ".join([*words[:20], "and 1 more"])
