"""What freezing spares is counted on shapes, and nothing is counted where nothing is frozen."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from configs.run import RunConfig
from launch.planning.frozen_parameters import Share, num_frozen, trained_share
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig

Door = Callable[..., list[dict[str, Any]]]
NETWORK = PerceiverConfig(
    inputs={"image": ImageInput(height=8, width=8)},
    outputs={"label": LabelOutput(num_classes=3)},
    num_latents=4,
    latent_width=16,
    num_cross_attends=1,
    num_blocks=1,
    layers_per_block=2,
)


def config(*freeze: str, policy: str = "none") -> RunConfig:
    network = replace(NETWORK, activation_checkpointing=policy)
    return RunConfig(model=network, optimizer=OptimizerConfig(freeze=freeze))


def test_where_nothing_is_frozen_no_network_is_made(door: Door) -> None:
    made = door("launch.planning.frozen_parameters.new_network")
    assert (num_frozen(config()), trained_share(config())) == (0, Share(operations=1.0, activations=1.0))
    assert made == []


def test_what_is_frozen_for_a_while_is_trained_later(door: Door) -> None:
    network = Perceiver(NETWORK, seed=0)
    whole = sum(parameter.numel() for parameter in network.encoder.parameters())
    later = sum(parameter.numel() for parameter in network.encoder.latents.parameters())
    assert num_frozen(config("encoder.*")) == whole
    assert num_frozen(config("encoder.*", "encoder.latents.*=3")) == whole - later
    # Nothing is measured for a share that is whole.
    measured = door("launch.planning.frozen_parameters.measured")
    assert trained_share(config("encoder.*=3")) == Share()
    assert measured == []


def test_a_share_is_of_the_same_work_with_all_trained_whatever_is_computed_again(door: Door) -> None:
    share = trained_share(config("encoder.*"))
    assert 0.3 < share.operations < 0.5
    assert 0 < share.activations < 0.1
    assert trained_share(config("encoder.*", policy="blocks")) == share
    assert trained_share(config("decoder.*")).operations == pytest.approx(1, abs=0.1)
