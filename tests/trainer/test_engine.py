"""The engine computes what a plain PyTorch loop computes, at every ZeRO stage, world size and micro-batch."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import OPTIMIZER, Network, whole_batch

from trainer.config import OptimizerConfig
from trainer.optimizers import learning_rate, parameter_groups

# fp32 keeps 7 digits; the parts of a batch are added in another order.
RELATIVE = 1e-6


def plain_loop(optimizer_config: OptimizerConfig) -> list[list[float]]:
    """Return [loss, gradient norm] of ten steps without DeepSpeed, ranks or micro-batches."""
    network = Network(seed=0)
    optimizer = torch.optim.AdamW(parameter_groups(network, optimizer_config.weight_decay), foreach=False)
    result = []
    for step in range(10):
        batch = whole_batch(step)
        logits = network(batch.arrays, batch.lengths)["label"]
        weights = batch.weights * (batch.labels >= 0)
        losses = functional.cross_entropy(logits, batch.labels.clamp(min=0), reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), optimizer_config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(optimizer_config, step, 10)
        optimizer.step()
        result.append([loss.item(), norm.item()])
    return result


@pytest.fixture(scope="module", params=[1, 2])
def engine_losses(request: pytest.FixtureRequest, run_ranks: Callable[..., list]) -> list[dict]:
    return run_ranks("losses", request.param)


@pytest.mark.slow
def test_every_stage_and_cut_gives_the_losses_and_norms_of_a_plain_loop(engine_losses: list[dict]) -> None:
    expected = torch.tensor(plain_loop(OPTIMIZER))
    for rank in engine_losses:
        for cut, values in rank.items():
            torch.testing.assert_close(
                torch.tensor(values), expected, rtol=RELATIVE, atol=0, msg=lambda text, cut=cut: f"{cut}: {text}"
            )


@pytest.mark.slow
def test_a_loop_with_another_learning_rate_is_told_apart(engine_losses: list[dict]) -> None:
    wrong = torch.tensor(plain_loop(replace(OPTIMIZER, learning_rate=OPTIMIZER.learning_rate * 1.01)))
    for values in engine_losses[0].values():
        with pytest.raises(AssertionError):
            torch.testing.assert_close(torch.tensor(values), wrong, rtol=RELATIVE, atol=0)


@pytest.mark.slow
def test_all_ranks_report_the_same_losses(engine_losses: list[dict]) -> None:
    assert all(rank == engine_losses[0] for rank in engine_losses)
