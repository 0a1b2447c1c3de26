"""A trained parameter that no gradient reaches is named once, after the first steps; the later ones cost nothing."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import ThreadWorld, on_ranks
from tiny import CLASSES, OPTIMIZER, Network, whole_batch

from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.engine.gradient_watch import GradientWatch, Notes, patterns, sentence
from trainer.tasks.network_draws import NetworkDraws
from trainer.tasks.objective import objective


class WithUnused(Network):
    """The tiny network with a layer that its forward pass leaves out, and one whose answer is multiplied by zero."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.unused = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.weightless = nn.Linear(5, 5)

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        answer = super().forward(inputs, lengths)["label"]
        return {"label": answer + 0 * self.weightless(answer)}


def engine(world: World, steps: int, optimizer: OptimizerConfig = OPTIMIZER, **train: Any) -> Engine:  # noqa: ANN401
    config = TrainConfig(steps=steps, global_batch=16, **train)
    return Engine(WithUnused(), CLASSES, optimizer=optimizer, train=config, world=world)


@pytest.mark.parametrize("stage", range(4))
def test_what_no_gradient_reaches_is_named_once_at_every_stage_and_no_hook_stays(world: World, stage: int) -> None:
    trained = engine(world, 2, zero_stage=stage, micro_batch=8 if stage == 2 else 0)
    told = [trained.step(whole_batch(index)).notice for index in range(3)]
    assert told[::2] == ["", ""]
    assert "no gradient came to 6 of 12 trained tensors in steps 1 to 2 (unused.*, weightless.*)" in told[1]
    assert "optimizer.freeze" in told[1]
    assert not any(parameter._backward_hooks for parameter in trained.network.module.parameters())
    trained.close()


def test_what_a_gradient_leaves_is_noted_where_the_parameter_is() -> None:
    added: list[torch.device] = []

    def total(flags: Tensor) -> Tensor:
        added.append(flags.device)
        return flags

    watch = GradientWatch(Network(0).to("meta"), 1, (), total)
    watch.prepare(0)
    watch.settle(1)
    assert added == [torch.device("meta")]


def test_what_is_frozen_is_not_missed_and_what_is_trained_later_is_watched_from_then_on(world: World) -> None:
    freeze = ("weightless.*", "unused.0.*=2", "first.*=2")
    trained = engine(world, 4, OptimizerConfig(freeze=freeze), zero_stage=1)
    told = [trained.step(whole_batch(index)).notice for index in range(4)]
    assert told[:3] == [""] * 3
    assert "no gradient came to 4 of 10 trained tensors in steps 1 to 4 (unused.*)" in told[3]
    trained.close()


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_no_bit_of_a_loss_depends_on_the_watch(world: World, stage: int) -> None:
    losses = []
    for is_watched in (True, False):
        trained = engine(world, 3, zero_stage=stage)
        if not is_watched:
            trained._gradient_watch._has_begun = True
        losses.append([trained.step(whole_batch(index)).loss for index in range(3)])
        trained.close()
    assert losses[0] == losses[1]


def test_what_a_network_drops_by_chance_is_not_missed(world: World) -> None:
    config = PerceiverConfig(
        inputs={name: PointsInput(num_points=11) for name in ("points", "rare")},
        outputs={"label": LabelOutput(num_classes=5)},
        num_latents=4,
        latent_width=8,
        num_cross_attends=2,
        num_blocks=2,
        layers_per_block=1,
        self_attend=AttentionConfig(num_heads=2),
        nested_latents=(2, 4),
        dropout=0.2,
        drop_path=0.4,
        mask_tokens=False,
    )
    goal = objective(config.answers(), draws=NetworkDraws.of(config, 0))
    train = TrainConfig(steps=3, global_batch=16)
    trained = Engine(Perceiver(config, seed=0), goal, optimizer=OPTIMIZER, train=train, world=world)
    told = []
    for index in range(3):
        batch = whole_batch(index)
        batch.arrays["rare"] = batch.arrays["points"]
        batch.lengths["rare"] = batch.lengths["points"] * (index == 2)
        told.append(trained.step(batch).notice)
    assert told == [""] * 3
    trained.close()


def test_a_parameter_that_one_rank_uses_is_not_missed_on_another() -> None:
    def rank(world: ThreadWorld) -> list[str]:
        network = nn.ModuleDict({name: nn.Linear(2, 1) for name in ("0", "1", "2")})
        watch = GradientWatch(network, 3, (), world.sum)
        told = []
        for step in range(3):
            watch.prepare(step)
            network[str(world.rank)](torch.ones(2)).sum().backward()
            notes = watch.settle(step + 1)
            told.append(sentence(notes, notes.reached.tolist()) if notes else "")
        return told

    first, second = on_ranks(2, rank)
    assert first == second
    assert first[:2] == ["", ""]
    assert first[2].startswith("no gradient came to 2 of 6 trained tensors in steps 1 to 3 (2.*): ")


def test_what_one_step_leaves_out_and_another_does_not_is_not_missed() -> None:
    network = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    watch = GradientWatch(network, 100, (), Tensor.clone)
    for step in range(10):
        watch.prepare(step)
        network[step == 7](torch.ones(2)).sum().backward()
        notes = watch.settle(step + 1)
    assert notes is not None
    assert sentence(notes, notes.reached.tolist()) == ""
    watch.prepare(10)
    assert watch.settle(20) is None


def test_what_was_told_after_a_step_that_the_run_goes_back_to_is_told_again() -> None:
    network = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    network[1].weight.requires_grad_(False)
    watch = GradientWatch(network, 100, (20,), Tensor.clone)

    def told(first: int, last: int) -> dict[int, int]:
        """Return after which steps something is told, and of how many parameters."""
        found = {}
        for step in range(first, last):
            network[1].weight.requires_grad_(step >= 20)
            watch.prepare(step)
            network[0](torch.ones(2)).sum().backward()
            if notes := watch.settle(step + 1):
                found[notes.last] = len(notes.names)
        return found

    assert told(0, 40) == {10: 3, 30: 1}
    assert told(30, 40) == {}
    assert told(15, 40) == {30: 1}
    assert told(4, 19) == {14: 3}
    assert told(14, 40) == {30: 1}


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["a.weight", "a.bias"], ["b.weight"], ["a.*"]),
        (["a.weight"], ["a.bias"], ["a.weight"]),
        (["layers.0.norm.weight", "layers.1.norm.weight"], ["layers.0.mlp.weight"], ["layers.*.norm.*"]),
        (["layers.1.a.weight", "layers.1.b.weight"], ["layers.0.a.weight"], ["layers.1.*"]),
        (["token"], ["token.weight"], ["token"]),
    ],
)
def test_names_are_told_as_the_fewest_patterns_that_match_no_other(
    names: list[str], others: list[str], expected: list[str]
) -> None:
    assert patterns(names, others) == expected


def test_of_many_patterns_a_few_are_shown() -> None:
    names = tuple(f"layer{number}.weight" for number in range(6))
    told = sentence(Notes(3, 3, (*names, "seen"), torch.empty(0)), [0] * 6 + [1])
    shown = "layer0.*, layer1.*, layer2.*, layer3.* and 2 more"
    assert told.startswith(f"no gradient came to 6 of 7 trained tensors in step 3 ({shown}): ")
