"""Values at given places: decoded anywhere, trained on those that are known, judged over all of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.grid import GridOutput
from model.outputs.output import Output
from model.outputs.points import PointsOutput
from model.perceiver import Perceiver
from model.positions import grid_places
from trainer.distributed.world import World
from trainer.evaluation.evaluation import evaluate
from trainer.tasks.answer import AnsweredFile, Telling
from trainer.tasks.kinds.points import PointsTask
from trainer.tasks.objective import objective
from trainer.tasks.task import Training

ROWS, PLACES = 4, 5
FIELD = PointsOutput(target="field", coordinates="where", num_channels=2)
SIZES: dict[str, Any] = {"num_latents": 4, "latent_width": 16, "num_cross_attends": 1, "num_blocks": 1}
SIZES["layers_per_block"] = 1
IMAGE = {"image": ImageInput(height=4, width=6, positions=PositionsConfig(num_bands=2))}


def network(**outputs: Output) -> Perceiver:
    config = PerceiverConfig(inputs=IMAGE, outputs=outputs, **SIZES)
    assert list(config.problems()) == []
    return Perceiver(config, seed=0)


def pictures() -> Tensor:
    return torch.randint(0, 256, (ROWS, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    field = torch.randn(ROWS, PLACES, 2, generator=generator)
    field[0, 1, 0] = torch.nan
    where = 2 * torch.rand(ROWS, PLACES, 2, generator=generator) - 1
    return Batch(
        arrays={"image": pictures(), "field": field, "where": where},
        lengths={
            "image": torch.full((ROWS,), 4),
            "field": torch.tensor([PLACES, 3, PLACES, 0]),
            "where": torch.tensor([PLACES, PLACES, 2, PLACES]),
        },
        labels=torch.full((ROWS,), -1),
        weights=torch.tensor([1.0, 0.5, 2.0, 1.0]),
        keys=("a", "b", "c", "d"),
    )


def known(batch: Batch) -> Tensor:
    there = torch.zeros(ROWS, PLACES, 2, dtype=torch.bool)
    there[0], there[1, :3], there[2, :2] = True, True, True
    return there & batch.arrays["field"].isfinite()


def test_places_of_a_grid_are_answered_as_a_grid_is() -> None:
    # Each axis of a grid has its own highest frequency: here both have half of 8.
    square = GridOutput(shape=(3, 5), num_channels=2, positions=PositionsConfig(num_bands=4, max_resolution=(8, 8)))
    of_grid = network(again=square)
    anywhere = network(again=PointsOutput(coordinates="at", num_channels=2, num_bands=4, max_frequency=4.0))
    anywhere.load_state_dict(of_grid.state_dict())
    places = grid_places((3, 5)).expand(ROWS, -1, -1)
    found = anywhere({"image": pictures(), "at": places})["again"]
    expected = of_grid({"image": pictures()})["again"].flatten(1, 2)
    # Products of other shapes.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    some = torch.tensor([14, 0, 3])
    asked = anywhere({"image": pictures(), "at": places}, points={"again": some})["again"]
    torch.testing.assert_close(asked, expected[:, some], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (None, "inputs.at: expected the places at which field is asked, got none"),
        (torch.zeros(ROWS, 5, 3), r"inputs\.at: expected \(batch, places, 2\), got \(4, 5, 3\)"),
        (torch.full((ROWS, 5, 2), torch.nan), r"inputs\.at: expected finite numbers, samples \[0, 1, 2, 3\] hold NaN"),
    ],
)
def test_places_that_cannot_be_asked_at_are_refused(places: Tensor | None, sentence: str) -> None:
    built = network(field=PointsOutput(coordinates="at"))
    with pytest.raises(ValueError, match=sentence):
        built({"image": pictures()} | ({} if places is None else {"at": places}))


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_a_loss_is_the_mean_over_the_values_that_are_known(batch: Batch, num_parts: int) -> None:
    task = PointsTask("field", FIELD)
    answer = torch.randn(ROWS, PLACES, 2, generator=torch.Generator().manual_seed(2), requires_grad=True)
    parts = zip(answer.chunk(num_parts), batch.micro_batches(num_parts), strict=True)
    found = sum(task.sum(rows, part) for rows, part in parts) / task.count(batch)
    weights = batch.weights[:, None, None].expand(-1, PLACES, 2)[known(batch)]
    errors = (answer - batch.arrays["field"])[known(batch)]
    torch.testing.assert_close(found, (errors.square() * weights).sum() / weights.sum())
    found.backward()
    assert answer.grad is not None
    assert answer.grad.isfinite().all()


def test_training_may_ask_some_of_the_places_the_same_for_all_samples(batch: Batch) -> None:
    task = PointsTask("field", replace(FIELD, train_points=3), Training(seed=7))
    asked = task.points(batch)
    assert asked is not None
    assert len(asked.unique()) == 3
    parts = [part.points(cut) for cut in batch.micro_batches(2) for part in [task]]
    assert all(of_part is not None and torch.equal(of_part, asked) for of_part in parts)
    assert task.points(batch, every=True) is None
    assert PointsTask("field", replace(FIELD, train_points=PLACES)).points(batch) is None
    assert not torch.equal(asked, task.points(replace(batch, index=1)))
    assert float(task.count(batch)) == float((known(batch)[:, asked] * batch.weights[:, None, None]).sum())


def test_the_places_that_are_asked_are_the_same_in_every_release(batch: Batch) -> None:
    # A run that resumes under another release must ask what it would have asked.
    task = PointsTask("field", replace(FIELD, train_points=3), Training(seed=7))
    found = [task.points(replace(batch, index=index)) for index in range(4)]
    assert [asked.tolist() for asked in found if asked is not None] == [[1, 3, 4], [0, 1, 4], [0, 3, 4], [2, 3, 4]]


def test_the_metrics_are_those_of_the_values_that_are_known(batch: Batch, world: World) -> None:
    class Half(nn.Module):
        def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
            return {"sky": torch.nan_to_num(arrays["field"]) + 0.5}

    found = evaluate(Half(), objective({"sky": FIELD}), [batch, batch], world, ("image",))
    assert found.flat()["sky/root_mean_squared_error"] == pytest.approx(0.5)
    assert found.num_judged == {"sky": 6}


def test_a_row_has_the_places_of_a_sample_and_its_true_values_where_one_is_known(
    batch: Batch,
) -> None:
    task = PointsTask("sky", FIELD)
    answer = torch.arange(ROWS * PLACES * 2.0).view(ROWS, PLACES, 2)
    rows = task.rows(answer, batch, Telling(with_truth=True))
    for number, (row, length) in enumerate(zip(rows, batch.lengths["where"].tolist(), strict=True)):
        said, true = row["sky"], row["sky_true"]
        assert isinstance(said, AnsweredFile)
        np.testing.assert_array_equal(said.array, answer[number, :length])
        if number == 3:
            assert true is None, "the sample has places and no values"
        else:
            assert isinstance(true, AnsweredFile)
            field = batch.arrays["field"].where(known(batch), torch.nan)
            np.testing.assert_array_equal(true.array, field[number, :length])
    for others in (
        task.rows(answer, batch, Telling()),
        task.rows(answer, without_field(batch), Telling(with_truth=True)),
    ):
        assert [list(row) for row in others] == [["sky"]] * ROWS


def without_field(batch: Batch) -> Batch:
    return replace(batch, arrays={name: array for name, array in batch.arrays.items() if name != "field"})
