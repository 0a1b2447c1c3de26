"""Regression: the loss is that of the numbers that are known, and the metrics are those of all samples together."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import ThreadWorld, on_ranks

from data_shards.loading.batch import Batch
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.value import ValueOutput
from model.perceiver import Perceiver
from trainer.distributed.world import World
from trainer.evaluation.evaluation import evaluate
from trainer.tasks.kinds.value import ValueTask
from trainer.tasks.objective import objective

ROWS, NAN = 8, math.nan
AGE = ValueOutput(target="age", num_values=2, offset=40.0, scale=10.0)


def batch_of(seed: int, offset: float = 40.0, deviation: float = 10.0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    truths = offset + deviation * torch.randn(ROWS, 2, generator=generator)
    truths[1, 0] = truths[4] = NAN
    return Batch(
        arrays={"points": torch.zeros(ROWS, 1, 3)},
        lengths={"points": torch.ones(ROWS, dtype=torch.int64)},
        labels=torch.full((ROWS,), -1),
        weights=torch.rand(ROWS, generator=generator),
        keys=tuple(map(str, range(ROWS))),
        targets={"age": truths},
    )


class Says(nn.Module):
    """Answers the truth and an error that grows by the key."""

    def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"years": arrays["points"][:, 0, :2]}


def said(batch: Batch, errors: Tensor) -> Batch:
    answers = torch.nan_to_num(batch.targets["age"]) + errors
    return replace(batch, arrays={"points": torch.cat([answers, answers[:, :1]], dim=1)[:, None]})


def squared(error: Tensor) -> Tensor:
    return error**2


def huber(error: Tensor) -> Tensor:
    return nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=0.5)


@pytest.mark.parametrize(("loss", "definition"), [("squared", squared), ("absolute", torch.abs), ("huber", huber)])
@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_a_loss_is_its_definition_over_the_numbers_that_are_known(
    loss: Literal["squared", "absolute", "huber"], definition: Callable[[Tensor], Tensor], num_parts: int
) -> None:
    batch = batch_of(0)
    answer = torch.full((ROWS, 2), 43.0, requires_grad=True)
    task = ValueTask("years", replace(AGE, loss=loss, huber_delta=0.5))
    parts = zip(answer.chunk(num_parts), batch.micro_batches(num_parts), strict=True)
    found = sum(task.sum(rows, part) for rows, part in parts) / task.count(batch)
    known = batch.targets["age"].isfinite()
    weights = batch.weights[:, None].expand(-1, 2)[known]
    errors = (43.0 - batch.targets["age"][known]) / 10
    torch.testing.assert_close(found, (definition(errors) * weights).sum() / weights.sum())
    found.backward()
    assert answer.grad is not None
    assert answer.grad.isfinite().all()
    assert (answer.grad[~known] == 0).all()


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize(("offset", "deviation"), [(40.0, 10.0), (1e6, 10.0), (0.0, 1e-3)])
def test_the_metrics_are_those_of_all_samples_of_all_ranks(
    world: World, world_size: int, offset: float, deviation: float
) -> None:
    goal = objective({"years": replace(AGE, offset=offset)})
    errors = torch.linspace(-4, 6, 2 * ROWS).view(ROWS, 2)
    batches = [said(batch_of(0, offset, deviation), errors), said(batch_of(1, offset, deviation), -errors)]
    # The last batch is half padding.
    batches[1] = replace(batches[1], keys=(*batches[1].keys[:4], *[""] * 4))

    def rank(here: ThreadWorld) -> Any:  # noqa: ANN401
        parts = [batch.micro_batches(world_size)[here.rank] for batch in batches]
        return evaluate(Says(), goal, parts, here, ("points",))

    truths = torch.cat([batches[0].targets["age"], batches[1].targets["age"][:4]]).double()
    answers = torch.cat([batches[0].arrays["points"][:, 0, :2], batches[1].arrays["points"][:4, 0, :2]]).double()
    known = truths.isfinite()
    wrong = (answers - truths)[known]
    explained = []
    for column in range(2):
        there = known[:, column]
        spread = (truths[there, column] - truths[there, column].mean()).square().sum()
        explained.append(1 - (answers - truths)[there, column].square().sum() / spread)
    expected = {
        "years/root_mean_squared_error": wrong.square().mean().sqrt().item(),
        "years/mean_absolute_error": wrong.abs().mean().item(),
        "years/r2": torch.stack(explained).mean().item(),
    }
    for found in on_ranks(world_size, rank) if world_size > 1 else [rank(world)]:  # type: ignore[arg-type]
        assert found.flat() == pytest.approx(expected, rel=1e-9)
        assert found.samples == 11, "one of the first batch and none of the second has no number at all"
        assert found.best_by == -found.flat()["years/root_mean_squared_error"]


def test_of_several_numbers_each_has_errors_of_its_own(world: World) -> None:
    truths = torch.tensor([[1.0, 10.0], [3.0, 10.0], [NAN, 10.0]])
    answers = torch.tensor([[2.0, 13.0], [3.0, 6.0], [9.0, 10.0]])
    batch = Batch(
        {"points": torch.cat([answers, answers[:, :1]], dim=1)[:, None]},
        {"points": torch.ones(3, dtype=torch.int64)},
        torch.full((3,), -1),
        torch.ones(3),
        ("a", "b", "c"),
        targets={"age": truths},
    )
    found = evaluate(Says(), objective({"years": AGE}), [batch], world, ("points",))
    assert found.tables == {
        "years": {
            "root_mean_squared_error_of_value": pytest.approx([math.sqrt(0.5), math.sqrt(25 / 3)]),
            # Of the second all true numbers are equal.
            "r2_of_value": [pytest.approx(1 - 1 / 2), None],
        }
    }
    expected = {"root_mean_squared_error": math.sqrt(26 / 5), "mean_absolute_error": 8 / 5, "r2": 0.5}
    assert found.flat() == pytest.approx({f"years/{name}": value for name, value in expected.items()})

    class First(Says):
        def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"years": arrays["points"][:, 0, :1]}

    alone = objective({"years": replace(AGE, num_values=1)})
    found = evaluate(First(), alone, [replace(batch, targets={"age": truths[:, :1]})], world, ("points",))
    assert found.tables == {"years": {}}
    assert found.flat()["years/mean_absolute_error"] == 0.5


# Of 104 times 1.1 the sum of the squares is another number than the square of the sum by their number.
@pytest.mark.parametrize(("value", "offset", "num_batches"), [(40.0, 40.0, 1), (1.1, 0.0, 13)])
def test_of_numbers_that_are_all_equal_nothing_can_be_explained(
    world: World, value: float, offset: float, num_batches: int
) -> None:
    batch = said(replace(batch_of(0), targets={"age": torch.full((ROWS, 2), value)}), torch.ones(ROWS, 2))
    goal = objective({"years": replace(AGE, offset=offset)})
    found = evaluate(Says(), goal, [batch] * num_batches, world, ("points",))
    expected = {"years/root_mean_squared_error": 1.0, "years/mean_absolute_error": 1.0}
    assert found.flat() == pytest.approx(expected, rel=1e-6)
    assert "r2" not in found.summary()


def test_an_untrained_network_answers_the_offset_and_a_value_of_its_own_name() -> None:
    points = PointsInput(num_points=4, num_bands=2, max_frequency=4.0)
    sizes: dict[str, Any] = {"num_latents": 2, "latent_width": 8, "num_cross_attends": 1, "num_blocks": 0}
    outputs = {"age": ValueOutput(num_values=2, offset=40.0, scale=10.0)}
    config = PerceiverConfig(inputs={"points": points}, outputs=outputs, **sizes)
    assert config.answers()["age"].target == "age"
    answer = Perceiver(config, seed=0)({"points": torch.rand(3, 4, 3)})["age"]
    assert torch.equal(answer, torch.full((3, 2), 40.0))
