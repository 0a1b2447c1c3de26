"""Schedules are functions of the step; groups exempt biases and normalisations from decay."""

import itertools
import math

import pytest
from torch import nn

from trainer.config import OptimizerConfig
from trainer.optimizers import learning_rate, parameter_groups


def rates(steps: int = 10, **fields: object) -> list[float]:
    return [learning_rate(OptimizerConfig(learning_rate=1.0, **fields), step, steps) for step in range(steps)]


def test_warm_up_rises_linearly_to_the_peak() -> None:
    assert rates(warmup_steps=4, schedule="constant") == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_cosine_falls_from_the_peak_to_the_final_fraction() -> None:
    values = rates(schedule="cosine", final_fraction=0.1)
    assert values[0] == 1.0
    assert values[5] == pytest.approx(0.55)
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert learning_rate(OptimizerConfig(learning_rate=1.0, final_fraction=0.1), 10, 10) == pytest.approx(0.1)


def test_flat_then_cosine_begins_to_fall_after_the_flat_steps() -> None:
    values = rates(schedule="flat_cosine", flat_steps=6)
    assert values[:7] == [1.0] * 7
    assert values[8] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


def test_step_decay_multiplies_at_each_named_step() -> None:
    assert rates(schedule="step", decay_steps=(3, 6)) == pytest.approx([1.0] * 3 + [0.1] * 3 + [0.01] * 4)


def test_only_biases_and_normalisations_escape_the_decay() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 3)
            self.norm = nn.LayerNorm(3)
            self.latents = nn.Parameter(self.linear.weight.new_zeros(4, 3))
            self.frozen = nn.Parameter(self.latents.detach().clone(), requires_grad=False)
            self.again = self.linear

    network = Network()
    decayed, exempt = parameter_groups(network, 0.1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(parameter)] for parameter in decayed["params"]} == {"linear.weight", "latents"}
    assert {names[id(parameter)] for parameter in exempt["params"]} == {"linear.bias", "norm.weight", "norm.bias"}
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)
