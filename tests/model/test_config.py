"""The configuration of a network: what it derives and what it refuses."""

import dataclasses
import subprocess
import sys

import pytest

from model.config import PerceiverConfig
from model.config_attention import AttentionConfig
from model.config_grids import PositionsConfig
from model.config_inputs import AudioInput, InputsConfig, PointsInput, TextInput
from model.config_outputs import FlowOutput, LabelOutput, OutputsConfig, TextOutput
from model.config_pixels import ImageInput, VideoInput

IMAGE = InputsConfig(image=ImageInput())
LABEL = OutputsConfig(label=LabelOutput())


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


def test_without_blocks_only_cross_attends_remain() -> None:
    config = PerceiverConfig(inputs=IMAGE, num_blocks=0, num_cross_attends=4, share_cross_attends=False)
    assert config.schedule() == tuple(("cross_attend", index) for index in range(4))


@pytest.mark.parametrize(
    ("inputs", "num_tokens", "token_width"),
    [
        (InputsConfig(image=ImageInput()), 50_176, 261),
        (InputsConfig(points=PointsInput()), 2_048, 387),
        (InputsConfig(text=TextInput()), 2_048, 768),
        # The audio-visual model of the first paper: 13,024 tokens of 487 channels.
        (
            InputsConfig(
                audio=AudioInput(num_samples=61_440, patch=128),
                video=VideoInput(num_frames=32, patch_frames=2, patch=8, positions=PositionsConfig(num_bands=16)),
            ),
            13_024,
            487,
        ),
    ],
)
def test_tokens_are_those_of_the_papers(inputs: InputsConfig, num_tokens: int, token_width: int) -> None:
    config = PerceiverConfig(inputs=inputs, outputs=LABEL)
    assert (config.num_tokens, config.token_width) == (num_tokens, token_width)
    assert list(config.problems()) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"inputs": InputsConfig()}, "inputs"),
        ({"inputs": InputsConfig(image=ImageInput(height=0))}, "inputs.image.height"),
        ({"inputs": InputsConfig(image=ImageInput(height=30, patch=4))}, "inputs.image.height"),
        (
            {"inputs": InputsConfig(image=ImageInput(positions=PositionsConfig(max_resolution=(8,))))},
            "inputs.image.positions.max_resolution",
        ),
        ({"latent_width": 100}, "self_attend.num_heads"),
        ({"cross_attend": AttentionConfig(num_heads=2)}, "cross_attend.num_heads"),
        ({"num_cross_attends": 0}, "num_cross_attends"),
        ({"outputs": OutputsConfig()}, "outputs.label"),
        ({"outputs": OutputsConfig(text=TextOutput())}, "outputs.text"),
        ({"outputs": OutputsConfig(flow=FlowOutput())}, "outputs.flow"),
    ],
)
def test_every_problem_names_its_key(change: dict[str, object], key: str) -> None:
    config = dataclasses.replace(PerceiverConfig(inputs=IMAGE, outputs=LABEL), **change)  # type: ignore[arg-type]
    assert key in [found for found, _ in config.problems()]


def test_the_config_needs_no_torch() -> None:
    code = "import sys, model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
