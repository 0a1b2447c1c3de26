"""The configuration of a network: what it derives and what it refuses."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.initial_weights import InitialWeightsConfig
from model.config.options import read_places
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.output import Output
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput

IMAGE = {"image": ImageInput(height=224, width=224)}
LABEL = {"label": LabelOutput()}


def test_the_paper_reads_between_blocks_and_shares_from_the_second_read_on() -> None:
    steps = PerceiverConfig(inputs=IMAGE, num_cross_attends=3, num_blocks=3).schedule()
    reads = ("cross_attend", 0), ("cross_attend", 1), ("cross_attend", 1)
    assert steps == tuple(step for read in reads for step in (read, ("block", 0)))


def test_fewer_cross_attends_than_blocks_are_spread_evenly() -> None:
    steps = PerceiverConfig(inputs=IMAGE, num_cross_attends=2, num_blocks=4, share_blocks=False).schedule()
    kinds = [kind for kind, _ in steps]
    assert kinds == ["cross_attend", "block", "block", "cross_attend", "block", "block"]
    assert [index for kind, index in steps if kind == "block"] == [0, 1, 2, 3]


def test_cross_attends_at_the_start_all_come_before_the_first_block() -> None:
    kinds = [kind for kind, _ in PerceiverConfig(inputs=IMAGE, arrangement="at_start").schedule()]
    assert kinds == ["cross_attend"] * 8 + ["block"] * 8


def test_cross_attends_of_the_first_blocks_come_before_one_each() -> None:
    config = PerceiverConfig(inputs=IMAGE, arrangement="first_blocks", num_cross_attends=3, num_blocks=5)
    kinds = [kind for kind, _ in config.schedule()]
    assert kinds == ["cross_attend", "block"] * 3 + ["block"] * 2
    assert [index for kind, index in config.schedule() if kind == "cross_attend"] == [0, 1, 1]
    refused = dict(
        PerceiverConfig(inputs=IMAGE, arrangement="first_blocks", num_cross_attends=3, num_blocks=2).problems()
    )
    assert "3 of them for 2 blocks" in refused["arrangement"]


def test_without_blocks_only_cross_attends_remain() -> None:
    config = PerceiverConfig(inputs=IMAGE, num_blocks=0, num_cross_attends=4, share_cross_attends=False)
    assert config.schedule() == tuple(("cross_attend", index) for index in range(4))


@pytest.mark.parametrize(
    ("inputs", "num_tokens", "token_width"),
    [
        ({"image": ImageInput(height=224, width=224)}, 50_176, 261),
        ({"points": PointsInput(num_points=2_048)}, 2_048, 387),
        ({"text": TextInput(max_tokens=2_048)}, 2_048, 768),
        # The audio-visual model of the first paper: 13,024 tokens of 487 channels.
        (
            {
                "audio": AudioInput(num_samples=61_440, patch=128),
                "video": VideoInput(
                    height=224,
                    width=224,
                    num_frames=32,
                    patch_frames=2,
                    patch=8,
                    positions=PositionsConfig(num_bands=16),
                ),
            },
            13_024,
            487,
        ),
    ],
)
def test_tokens_are_those_of_the_papers(inputs: dict[str, Input], num_tokens: int, token_width: int) -> None:
    config = PerceiverConfig(inputs=inputs, outputs=LABEL)
    assert (config.num_tokens, config.token_width) == (num_tokens, token_width)
    assert list(config.problems()) == []


ASKED = LabelOutput(pooling="query")


def test_tasks_are_answered_in_the_order_of_their_names() -> None:
    outputs = {"label": LabelOutput(), "zebra": ASKED, "apple": ASKED, "image": GridOutput()}
    answers = PerceiverConfig(inputs=IMAGE, outputs=outputs).answers()
    assert list(answers) == ["apple", "image", "label", "zebra"]
    assert answers["image"] == GridOutput(target="image", shape=(224, 224), num_channels=3, value_range=1.0)


def test_an_answer_about_an_input_has_the_name_of_that_input_or_names_it() -> None:
    inputs = {
        "audio": AudioInput(num_samples=32, patch=8),
        "video": VideoInput(num_frames=2, height=4, width=8),
        "text": TextInput(max_tokens=2_048),
        "pair": FlowInput(height=4, width=6),
    }
    outputs = {
        "audio": GridOutput(),
        "pair": GridOutput(),
        "clip": GridOutput(target="video"),
        "sound": GridOutput(target="audio", shape=(2,), value_range=6.0),
        "words": TextOutput(target="text"),
        "age": ValueOutput(),
        "years": ValueOutput(target="age"),
    }
    answers = PerceiverConfig(inputs=inputs, outputs=outputs).answers()
    assert {name: answer.target for name, answer in answers.items()} == {
        "audio": "audio",
        "pair": "pair",
        "clip": "video",
        "sound": "audio",
        "words": "text",
        "age": "age",
        "years": "age",
    }
    grids = {name: answer for name, answer in answers.items() if isinstance(answer, GridOutput)}
    assert {name: ((*grid.shape, grid.num_channels), grid.value_range) for name, grid in grids.items()} == {
        "audio": ((4, 8), 2.0),
        # Without patches.
        "pair": ((2, 4, 6, 3), 0.0),
        "clip": ((2, 4, 8, 3), 1.0),
        "sound": ((2, 16), 6.0),
    }


@pytest.mark.parametrize(
    ("outputs", "width"),
    [
        (LABEL, 0),
        ({"label": ASKED}, 1_024),
        ({"label": LabelOutput(pooling="query", query_width=5)}, 5),
        # The mean asks nothing, and is not padded for.
        ({"label": LabelOutput(), "a": LabelOutput(pooling="query", query_width=5, target="a")}, 5),
        ({"label": ASKED, "image": GridOutput(shape=(2, 3))}, 1_024 + 2),
        ({"image": GridOutput(shape=(2, 3), positions=PositionsConfig(num_bands=3))}, 2 * 7),
        ({"image": GridOutput(shape=(2,), positions=PositionsConfig("learned", project_to=9))}, 9),
    ],
)
def test_queries_are_as_wide_as_the_widest_and_padded_where_there_are_several(
    outputs: dict[str, Output], width: int
) -> None:
    assert PerceiverConfig(inputs=IMAGE, outputs=outputs).decoder_width == width


def test_half_of_the_steps_train_all_latents_and_the_rest_each_smaller_size_alike() -> None:
    nested = PerceiverConfig(inputs=IMAGE, num_latents=8, nested_latents=(1, 2, 4, 8))
    assert nested.latent_sizes == (1, 2, 4, 8)
    assert nested.latent_shares == {1: 0.5 / 3, 2: 0.5 / 3, 4: 0.5 / 3, 8: 0.5}
    one = PerceiverConfig(inputs=IMAGE, num_latents=8)
    assert (one.latent_sizes, one.latent_shares) == ((8,), {8: 1.0})
    assert nested.with_latents(2) == PerceiverConfig(inputs=IMAGE, num_latents=2)


def test_a_network_counts_its_layers_and_knows_whether_it_draws() -> None:
    config = PerceiverConfig(inputs=IMAGE, num_cross_attends=3, num_blocks=5, layers_per_block=7)
    assert config.num_layers == 3 + 5 * 7
    drawing = [
        PerceiverConfig(dropout=rate, drop_path=path).draws for rate, path in ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1))
    ]
    assert drawing == [False, True, True]


@pytest.mark.parametrize(
    ("arrangement", "expected"),
    [("interleaved", [0, 1, 3]), ("at_start", [0, 0, 0]), ("first_blocks", [0, 1, 2])],
)
def test_each_cross_attend_has_the_block_before_which_it_comes(arrangement: Any, expected: list[int]) -> None:  # noqa: ANN401
    assert read_places(arrangement, 3, 5) == expected


@pytest.mark.parametrize("shared", [True, False, "after_first"])
def test_blocks_have_the_module_that_they_share(shared: Any) -> None:  # noqa: ANN401
    config = PerceiverConfig(inputs=IMAGE, num_cross_attends=1, num_blocks=3, share_blocks=shared)
    expected = {True: [0, 0, 0], False: [0, 1, 2], "after_first": [0, 1, 1]}[shared]
    assert [index for kind, index in config.schedule() if kind == "block"] == expected


def test_passes_read_each_compared_input_alone_and_all_others_together() -> None:
    inputs = {name: AudioInput(num_samples=32, patch=8) for name in ("a", "b", "c")}
    near = EmbeddingOutput(pair=("a", "b"))
    far = EmbeddingOutput(pair=("b", "c"))
    config = PerceiverConfig(inputs=inputs, outputs={"near": near, "far": far, "label": LabelOutput()})
    assert [list(outputs) for outputs in config.passes()] == [["label"], ["far", "near"], ["far"], ["near"]]
    alone = PerceiverConfig(inputs=inputs, outputs={"near": near})
    assert [list(outputs) for outputs in alone.passes()] == [["near"], ["near"]]
    assert PerceiverConfig(inputs=inputs).passes() == [{}]


CLOUD = {"points": PointsInput(num_points=9)}
SOUND = {"sound": AudioInput(num_samples=32, patch=8)}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"dropout": 1.0}, ["dropout"]),
        ({"dropout": -0.1, "drop_path": 1.0}, ["dropout", "drop_path"]),
        ({"dropout": 0.99, "drop_path": 0.99}, []),
        ({"drop_path": 0.1, "num_cross_attends": 1, "num_blocks": 0}, ["drop_path"]),
        ({"drop_path": 0.1, "num_cross_attends": 2, "num_blocks": 0}, []),
        ({"arrangement": "first_blocks", "num_cross_attends": 1, "num_blocks": 0}, []),
        ({"arrangement": "first_blocks", "num_cross_attends": 2, "num_blocks": 0}, ["arrangement"]),
        ({"arrangement": "first_blocks", "num_cross_attends": 8, "num_blocks": 8}, []),
        ({"num_latents": 2, "nested_latents": (1, 2)}, []),
        ({"self_attend": AttentionConfig(512, rotary=True)}, []),
        ({"self_attend": AttentionConfig(1_024, rotary=True)}, ["self_attend.rotary"]),
        ({"cross_attend": AttentionConfig(qk_width=4, rotary=True)}, []),
        ({"cross_attend": AttentionConfig(qk_width=3, rotary=True)}, ["cross_attend.rotary"]),
        ({"inputs": CLOUD, "cross_attend": AttentionConfig(rotary=True)}, ["cross_attend.rotary"]),
        ({"inputs": CLOUD, "self_attend": AttentionConfig(rotary=True)}, []),
        # Tokens of two inputs, with places on one axis and on two.
        ({"inputs": IMAGE | SOUND, "cross_attend": AttentionConfig(qk_width=4, rotary=True)}, []),
        ({"inputs": IMAGE | SOUND, "cross_attend": AttentionConfig(qk_width=2, rotary=True)}, ["cross_attend.rotary"]),
        ({"inputs": IMAGE | CLOUD, "cross_attend": AttentionConfig(qk_width=4, rotary=True)}, ["cross_attend.rotary"]),
        ({"cross_attend_form": "separable", "mask_tokens": True}, ["cross_attend_form"]),
        ({"cross_attend_form": "absorbed", "cross_attend": AttentionConfig(qk_norm=True)}, ["cross_attend_form"]),
        ({"cross_attend_form": "separable"}, []),
        ({"inputs": CLOUD, "cross_attend_form": "absorbed"}, []),
        ({"inputs": CLOUD, "cross_attend_form": "separable"}, ["cross_attend_form"]),
    ],
)
def test_what_does_not_go_together_names_its_key(change: dict[str, Any], keys: list[str]) -> None:
    config = replace(PerceiverConfig(inputs=IMAGE, outputs=LABEL), **change)
    assert [key for key, _ in config.problems()] == keys


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({}, []),
        ({"source": "x", "rename": ("a=b", "a.b=c"), "drop": ("d",), "resize": True, "weights": "ema"}, []),
        ({"source": "x", "rename": ("a=b", "c", "a=d", "a=e", "c")}, ["rename"] * 4),
        ({"drop": ("d",)}, ["drop"]),
        ({"weights": "ema", "rename": ("a=b",), "resize": True}, ["weights", "rename", "resize"]),
    ],
)
def test_weights_to_start_from_are_refused_by_their_key(fields: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, _ in InitialWeightsConfig(**fields).problems()] == keys


def test_the_config_needs_no_torch() -> None:
    code = "import sys, model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
