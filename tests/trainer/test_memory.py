"""The micro-batch is halved until it fits, and the global batch stays."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import CLASSES, Network, whole_batch

from trainer.config import TrainConfig
from trainer.memory import fitting
from trainer.world import World

WORLD = World(0, 1, 0, torch.device("cpu"))


class Hungry(Network):
    """Runs out of memory above so many samples."""

    def __init__(self, most: int) -> None:
        super().__init__(seed=0)
        self.most = most

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        if len(inputs["points"]) > self.most:
            raise torch.OutOfMemoryError("more than there is")
        return super().forward(inputs, lengths)


@pytest.mark.parametrize(("most", "expected"), [(100, 0), (12, 6), (5, 3), (2, 1)])
def test_the_micro_batch_is_the_first_half_that_fits(most: int, expected: int) -> None:
    network = Hungry(most)
    train = fitting(network, CLASSES, whole_batch(0, 12), TrainConfig(global_batch=12), WORLD)
    assert train.global_batch == 12
    assert train.micro_batch == (0 if most >= 12 else expected)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_single_sample_that_does_not_fit_is_refused_with_remedies() -> None:
    with pytest.raises(ValueError, match="activation_checkpointing"):
        fitting(Hungry(0), CLASSES, whole_batch(0, 12), TrainConfig(global_batch=12), WORLD)
