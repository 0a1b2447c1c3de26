"""What is frozen does not move; what is unfrozen at a step trains as in a plain loop, and resumes to the last bit."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from plain_lamb import PlainLamb
from tiny import Network, whole_batch
from unfreezing import CASES, FIRST_STEP, LAST_STEP, SAVES, resumed, straight

from trainer.config import OptimizerConfig
from trainer.distributed.world import World
from trainer.engine.unfreezing import Unfreezing
from trainer.optim.groups import freeze, parameter_groups
from trainer.schedule import learning_rate

# fp32 keeps 7 digits; the parts of a batch are added in another order.
RELATIVE = 2e-6


def plain_loop(config: OptimizerConfig) -> torch.Tensor:
    """Return loss and norm of each step of a loop in plain PyTorch, where what is frozen has no gradient."""
    network = Network(seed=0)
    freeze(network, config)
    groups = parameter_groups(network, config)
    late = [parameter for group in groups if group["first_step"] for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, foreach=False) if config.name == "adamw" else PlainLamb(groups, config)
    told = []
    for step in range(LAST_STEP):
        for parameter in late:
            parameter.requires_grad_(step >= FIRST_STEP)
        batch = whole_batch(step)
        weights = batch.weights * (batch.labels >= 0)
        logits = network(batch.arrays, batch.lengths)["label"]
        losses = functional.cross_entropy(logits, batch.labels.clamp(min=0), reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, LAST_STEP) * group["rate_factor"]
        optimizer.step()
        told.append([loss.item(), norm.item()])
    return torch.tensor(told)


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory, run_ranks: Callable[..., list]) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("unfreezing")
    told, _ = run_ranks("unfreezing", 2, folder)
    return folder, told


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_a_plain_loop_and_a_resume_before_at_and_after_that_step_ends_with_the_same_bits(
    world: World, tmp_path: Path, case: str, of_two_ranks: tuple[Path, dict]
) -> None:
    folder, told = of_two_ranks
    # As JSON has it, which has no numbers as keys.
    alone = json.loads(json.dumps(straight(world, tmp_path, case)))
    there, together = told[case], told[case]["straight"]
    expected = plain_loop(CASES[case][0])
    for found in (alone, together):
        torch.testing.assert_close(torch.tensor(found["told"]), expected, rtol=RELATIVE, atol=0.0)
        assert found["progress"]["late_steps"] == {str(FIRST_STEP): LAST_STEP - FIRST_STEP}
    assert_frozen(alone)
    for step in SAVES:
        assert_same(alone, resumed(world, tmp_path, case, step), step)
        assert_same(together, there[str(step)], step)
    # On another number of ranks it takes over the same bits; sums are rounded otherwise from there on. Each case does
    # so from another of the saves.
    step = SAVES[list(CASES).index(case) % len(SAVES)]
    elsewhere = json.loads(json.dumps(resumed(world, folder, case, step)))
    assert elsewhere[str(step)] == together[str(step)]
    assert elsewhere["progress"] == together["progress"]
    torch.testing.assert_close(
        torch.tensor(elsewhere["told"]), torch.tensor(together["told"][step:]), rtol=RELATIVE, atol=0.0
    )


def assert_frozen(found: dict[str, Any]) -> None:
    """What is frozen for the whole run or until a step has not moved; the moments of the latter are there, as zeros."""
    before, at, end = found["0"], found[str(FIRST_STEP)], found[str(LAST_STEP)]
    unmoved = {name for name in before if before[name] == at[name]}
    late = {f"{kind} first.{name}" for kind in ("weight", "exp_avg", "exp_avg_sq") for name in ("weight", "bias")}
    assert unmoved == late | {"weight norm.weight", "weight frozen", "weight offset"}
    assert {name for name in before if before[name] == end[name]} == unmoved - late
    assert "exp_avg norm.weight" not in before


def assert_same(straight_run: dict[str, Any], resumed_run: dict[str, Any], step: int) -> None:
    resumed_run = json.loads(json.dumps(resumed_run))
    for at in (step, LAST_STEP):
        assert resumed_run[str(at)] == straight_run[str(at)]
    assert resumed_run["told"] == straight_run["told"][step:]
    assert resumed_run["progress"] == straight_run["progress"]


def test_until_its_step_a_parameter_asks_for_no_gradient_and_does_not_move_and_then_it_trains_as_if_new() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(3, generator=generator) for _ in range(3)]
    gradients = torch.randn(6, 3, 3, generator=generator)

    def optimizer(parameters: list[nn.Parameter], first_steps: tuple[int, ...]) -> torch.optim.AdamW:
        options = {"rate_factor": 0.5, "weight_decay": 0.1}
        groups = [
            {"params": [parameter], "first_step": first, **options}
            for parameter, first in zip(parameters, first_steps, strict=True)
        ]
        return torch.optim.AdamW(groups, foreach=False)

    parameters = [nn.Parameter(values.clone()) for values in drawn]
    inner = optimizer(parameters, (0, 2, 4))
    unfreezing = Unfreezing(inner)
    assert sorted(unfreezing.first_steps) == [2, 4]
    for step in range(6):
        rate = 0.1 * (step + 1)
        unfreezing.prepare(step, rate)
        trains = [True, step >= 2, step >= 4]
        assert [parameter.requires_grad for parameter in parameters] == trains
        assert [group["lr"] for group in inner.param_groups] == [rate * 0.5 if each else 0.0 for each in trains]
        for number, parameter in enumerate(parameters):
            # As ZeRO has it: zeros for what asks for no gradient.
            parameter.grad = gradients[step, number] if trains[number] else torch.zeros(3)
        inner.step()
        unfreezing.settle(step, lambda: [group["params"] for group in inner.param_groups])
    for number, first in enumerate((0, 2, 4)):
        new = nn.Parameter(drawn[number].clone())
        plain = optimizer([new], (0,))
        for step in range(first, 6):
            plain.param_groups[0]["lr"] = 0.1 * (step + 1) * 0.5
            new.grad = gradients[step, number]
            plain.step()
        assert torch.equal(parameters[number], new)
        assert inner.state[parameters[number]]["step"] == 6 - first


def test_where_everything_trains_from_the_start_no_count_is_looked_at() -> None:
    inner = torch.optim.AdamW([{"params": [nn.Parameter(torch.ones(1))], "first_step": 0, "rate_factor": 1.0}])
    unfreezing = Unfreezing(inner)
    unfreezing.prepare(0, 0.1)
    unfreezing.settle(0, lambda: pytest.fail("asked for the parts"))
    assert list(unfreezing.first_steps) == []
