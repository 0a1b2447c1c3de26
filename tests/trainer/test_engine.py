"""The engine computes what a plain PyTorch loop computes, at every ZeRO stage, world size and micro-batch."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
import stem
from plain_lamb import PlainLamb
from tiny import CLASSES, LAMB, OPTIMIZER, Network, engine, whole_batch

from model.budget.plan import POLICIES
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.optim.groups import parameter_groups
from trainer.optim.lamb import Lamb
from trainer.schedule import learning_rate

# fp32 keeps 7 digits; the parts of a batch are added in another order.
RELATIVE = 1e-6


def plain_loop(config: OptimizerConfig, steps: int) -> torch.Tensor:
    """Return loss, norm and norm of the decayed group of each step, without DeepSpeed, ranks or micro-batches."""
    network = Network(seed=0)
    groups = parameter_groups(network, config)
    optimizer = torch.optim.AdamW(groups, foreach=False) if config.name == "adamw" else PlainLamb(groups, config)
    result = []
    for step in range(steps):
        batch = whole_batch(step)
        weights = batch.weights * (batch.labels >= 0)
        logits = network(batch.arrays, batch.lengths)["label"]
        losses = functional.cross_entropy(logits, batch.labels.clamp(min=0), reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        decayed = math.sqrt(sum(p.grad.square().sum().item() for p in optimizer.param_groups[0]["params"]))
        norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, steps)
        optimizer.step()
        result.append([loss.item(), norm.item(), decayed])
    return torch.tensor(result)


@pytest.fixture(scope="module", params=[1, 2])
def told(request: pytest.FixtureRequest, run_ranks: Callable[..., list]) -> list[dict]:
    """What each rank of a world of this size reported."""
    return run_ranks("losses", request.param)


def cases(told: list[dict], kind: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values) for name, values in told[0].items() if name.startswith(f"{kind}/")}


@pytest.mark.slow
@pytest.mark.parametrize(("config", "steps"), [(OPTIMIZER, 10), (LAMB, 20)], ids=["adamw", "lamb"])
def test_every_stage_and_cut_gives_the_losses_and_norms_of_a_plain_loop(
    told: list[dict], config: OptimizerConfig, steps: int
) -> None:
    expected = plain_loop(config, steps)
    found = cases(told, config.name)
    assert len(found) == {"adamw": 8, "lamb": 3}[config.name]
    for values in found.values():
        torch.testing.assert_close(values, expected, rtol=RELATIVE, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "steps"), [(OPTIMIZER, 10), (LAMB, 20)], ids=["adamw", "lamb"])
def test_a_loop_with_another_learning_rate_is_told_apart(told: list[dict], config: OptimizerConfig, steps: int) -> None:
    wrong = plain_loop(replace(config, learning_rate=config.learning_rate * 1.01), steps)
    for values in cases(told, config.name).values():
        with pytest.raises(AssertionError):
            torch.testing.assert_close(values, wrong, rtol=RELATIVE, atol=0)


@pytest.mark.slow
def test_all_ranks_report_the_same(told: list[dict]) -> None:
    # As text: a loss that is not a number does not equal itself.
    assert all(str(rank) == str(told[0]) for rank in told)


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(4))
def test_a_sample_that_is_not_finite_on_one_rank_skips_the_step_on_all_and_changes_nothing(
    told: list[dict], stage: int
) -> None:
    for rank in told:
        steps, without = rank[f"broken/{stage}"], rank[f"broken_once/{stage}"]
        assert [is_skipped for is_skipped, _ in steps] == [False, True, False]
        assert not math.isfinite(steps[1][1])
        assert [steps[0], steps[2]] == without


@pytest.mark.slow
def test_activation_checkpointing_changes_no_bit_at_any_stage(run_ranks: Callable[..., list]) -> None:
    told = run_ranks("policies", 2)[0]
    for stage in range(4):
        steps = [told[f"{stage}/{policy}"] for policy in POLICIES]
        assert all(other == steps[0] for other in steps), f"stage {stage}: {told}"
        losses = [loss for loss, _ in steps[0]]
        assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("stage", [0, 1])
def test_lamb_adds_the_parts_of_a_norm_over_the_ranks_where_these_have_parts(
    world: World, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    added_by: list[Callable[..., object]] = []
    bind = Lamb.bind

    def noted(self: Lamb, *given: Any) -> None:  # noqa: ANN401  # what bind takes
        added_by.append(given[2])
        bind(self, *given)

    monkeypatch.setattr(Lamb, "bind", noted)
    engine(world, optimizer=LAMB, zero_stage=stage).close()
    assert added_by == [world.sum if stage else torch.Tensor.clone]


def test_lamb_over_cut_weights_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.name: lamb is exact at train\.zero_stage 0, 1 and 2"):
        engine(World(0, 1, 0, torch.device("cpu")), optimizer=LAMB, zero_stage=3)


@pytest.mark.parametrize(("compile", "device"), [(True, "cpu"), (True, "cuda"), ("auto", "cuda")])
def test_a_network_that_would_be_compiled_over_cut_weights_is_refused_before_anything_starts(
    compile: bool | str,  # noqa: A002  # the config's key
    device: str,
) -> None:
    network, world = Perceiver(replace(stem.CONFIG, compile=compile), seed=0), World(0, 1, 0, torch.device(device))
    train = TrainConfig(global_batch=stem.GLOBAL_BATCH, zero_stage=3)
    with pytest.raises(ValueError, match=r"^model\.compile: compiles with train\.zero_stage 0, 1 and 2 only: .* false"):
        Engine(network, stem.GOAL, optimizer=OPTIMIZER, train=train, world=world)


@pytest.mark.parametrize(
    ("config", "stage", "micro_batch"),
    [
        *((config, *cut) for config in (OPTIMIZER, LAMB) for cut in ((0, 0), (0, 8), (1, 4), (2, 8))),
        (OPTIMIZER, 3, 8),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_one_process_gives_the_losses_and_norms_of_a_plain_loop(
    world: World, config: OptimizerConfig, stage: int, micro_batch: int
) -> None:
    # A norm far above the bound: what is not clipped shows.
    config = replace(config, clip_norm=0.05)
    trained = engine(world, optimizer=config, zero_stage=stage, micro_batch=micro_batch, steps=5, log_every_steps=1)
    reports = [trained.step(whole_batch(step)) for step in range(5)]
    trained.close()
    found = [[float(report.loss), float(report.grad_norm), report.group_norms["decayed"]] for report in reports]
    torch.testing.assert_close(torch.tensor(found), plain_loop(config, 5), rtol=RELATIVE, atol=0)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_clip_norm_of_0_clips_nothing(world: World, stage: int) -> None:
    found = []
    for clip_norm in (0.0, 1e9):
        trained = engine(world, optimizer=replace(OPTIMIZER, clip_norm=clip_norm), zero_stage=stage)
        found.append([trained.step(whole_batch(step)).loss for step in range(3)])
        trained.close()
    assert found[0] == found[1]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_loss_that_is_infinite_skips_the_step_though_its_gradient_is_finite(world: World, stage: int) -> None:
    trained = engine(world, zero_stage=stage)
    batch = whole_batch(0)
    before = {name: tensor.clone() for name, tensor in trained.snapshot()["weight"].items()}
    # Sums of an infinite constant: the gradient knows nothing of it.
    sums = trained._objective.sums

    def infinite(*arguments: object, **options: object) -> dict[str, torch.Tensor]:
        return {task: total + math.inf for task, total in sums(*arguments, **options).items()}

    told = {"counts": CLASSES.counts, "loss": CLASSES.loss, "weights": CLASSES.weights, "others": CLASSES.others}
    trained._objective = type("Infinite", (), {"sums": staticmethod(infinite), **told})()
    report = trained.step(batch)
    assert report.is_skipped
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.snapshot()["weight"].items())
    trained.close()
