"""A run shows some inputs, and what its network drew again, on the first rank."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from launch.shown import shown
from model.config_outputs import GridOutput, OutputsConfig
from trainer.objective import objective
from trainer.world import World

GOAL = objective(OutputsConfig(image=GridOutput(shape=(4, 4))))


class Gray(nn.Module):
    """Draws every picture gray."""

    def forward(self, arrays: dict[str, Tensor], _lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"image": torch.full((len(arrays["image"]), 4, 4, 3), 0.5)}


@pytest.fixture
def batch() -> Batch:
    return Batch(
        arrays={
            "image": torch.zeros(12, 4, 4, 3, dtype=torch.uint8),
            "video": torch.zeros(12, 2, 4, 4, 3, dtype=torch.uint8),
        },
        lengths={"image": torch.full((12,), 4), "video": torch.full((12,), 2)},
        labels=torch.zeros(12, dtype=torch.int64),
        weights=torch.ones(12),
        keys=tuple("abcdefghijkl"),
    )


def test_what_is_drawn_again_stands_below_its_input_and_other_inputs_alone(batch: Batch) -> None:
    world = World(0, 1, 0, torch.device("cpu"))
    found = shown(Gray(), GOAL, batch, world)
    assert found.keys() == {"reconstructions/image", "inputs/video"}
    both, alone = found["reconstructions/image"], found["inputs/video"]
    assert len(both) == 2 * len(alone)
    # The lower row is gray where the upper one is black.
    assert (both[len(both) // 2 :] == 127).any()
    assert not (both[: len(both) // 2] == 127).all(axis=-1).sum() > 100
    assert shown(Gray(), GOAL, batch, replace(world, rank=1)) == {}
