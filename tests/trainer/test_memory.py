"""The micro-batch is halved until it fits, and the global batch stays."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from stem import CONFIG, GLOBAL_BATCH, GOAL, images
from threads import ThreadWorld, on_ranks
from tiny import CLASSES, Network, whole_batch

from model.perceiver import Perceiver
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


def test_a_trial_leaves_the_running_statistics_of_a_batch_norm_as_they_are() -> None:
    network = Perceiver(CONFIG, seed=0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fitting(network, GOAL, images(0), TrainConfig(global_batch=GLOBAL_BATCH), WORLD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training


def test_a_single_sample_that_does_not_fit_is_refused_with_remedies() -> None:
    with pytest.raises(ValueError, match="activation_checkpointing"):
        fitting(Hungry(0), CLASSES, whole_batch(0, 12), TrainConfig(global_batch=12), WORLD)


def test_what_does_not_fit_on_one_rank_is_cut_on_all() -> None:
    def rank(world: ThreadWorld) -> int:
        share = whole_batch(0, 12).micro_batches(2)[world.rank]
        network = Hungry(3 if world.rank else 100)
        return fitting(network, CLASSES, share, TrainConfig(global_batch=12), world).micro_batch

    assert on_ranks(2, rank) == [3, 3]


def test_a_sample_that_fits_alone_is_trained_on_alone() -> None:
    assert fitting(Hungry(1), CLASSES, whole_batch(0, 12), TrainConfig(global_batch=12), WORLD).micro_batch == 1
    given = TrainConfig(global_batch=12, micro_batch=4)
    assert fitting(Hungry(4), CLASSES, whole_batch(0, 12), given, WORLD) == given
    assert fitting(Hungry(3), CLASSES, whole_batch(0, 12), given, WORLD).micro_batch == 2
