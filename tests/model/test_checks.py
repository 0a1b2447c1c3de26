"""Bad batches are refused by the name of the field, with what was expected and what came."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model.checks import check_lengths
from model.config import PerceiverConfig
from model.config_inputs import InputsConfig, PointsInput, TextInput
from model.config_outputs import LabelOutput, OutputsConfig
from model.config_pixels import ImageInput
from model.perceiver import Perceiver

CONFIG = PerceiverConfig(
    inputs=InputsConfig(
        image=ImageInput(height=4, width=4),
        points=PointsInput(num_points=5),
        text=TextInput(max_tokens=8, embedding_width=16),
    ),
    outputs=OutputsConfig(label=LabelOutput(num_classes=2)),
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
        ("text", torch.zeros(2, 9, dtype=torch.int16), r"inputs\.text: expected \(batch, 8\), got \(2, 9\)"),
        ("text", torch.full((2, 8), 262), r"inputs\.text: expected ids from 0 to 261, got 262 to 262"),
        ("points", nan_at_second(), r"inputs\.points: expected finite numbers, samples \[1\]"),
    ],
)
def test_a_bad_value_is_refused(name: str, value: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Perceiver(CONFIG, seed=0)({**GOOD, name: value})


def test_every_missing_modality_is_named() -> None:
    with pytest.raises(ValueError, match=r"inputs\.image: .*; inputs\.points: "):
        Perceiver(CONFIG, seed=0)({"text": GOOD["text"]})


def test_samples_without_any_token_are_named() -> None:
    check_lengths({"image": torch.tensor([4, 0]), "text": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match="samples 1 have none"):
        check_lengths({"image": torch.tensor([4, 0]), "text": torch.tensor([0, 0])})


def test_a_network_without_modalities_is_refused() -> None:
    with pytest.raises(ValueError, match="inputs: no modality is set"):
        Perceiver(dataclasses.replace(CONFIG, inputs=InputsConfig()), seed=0)
