"""Classes with weights, and what an evaluation says of each class."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import ThreadWorld, on_ranks

from data_shards.loading.batch import Batch
from model.outputs.label import LabelOutput, LabelsOutput
from trainer.distributed.world import World
from trainer.evaluation.evaluation import Evaluation, evaluate
from trainer.tasks.kinds.label import LabelTask
from trainer.tasks.kinds.labels import LabelsTask
from trainer.tasks.objective import objective
from trainer.tasks.task import Training

CLASSES = 7
WEIGHTS = (1.0, 0.0, 3.0, 0.5, 1.0, 2.0, 1.0)


@pytest.fixture
def batch() -> Batch:
    return Batch(
        arrays={"points": torch.zeros(8, 1, 3)},
        lengths={"points": torch.ones(8, dtype=torch.int64)},
        labels=torch.tensor([0, 1, 2, 2, -1, 3, 5, 5]),
        weights=torch.linspace(0.5, 2, 8),
        keys=tuple("abcdefgh"),
    )


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))


def loss_of(task: Any, answer: Tensor, batch: Batch, num_parts: int) -> Tensor:  # noqa: ANN401  # any task
    parts = zip(answer.chunk(num_parts), batch.micro_batches(num_parts), strict=True)
    total: Tensor = sum(task.sum(rows, part) for rows, part in parts)
    return total / task.count(batch)


@pytest.mark.parametrize("num_parts", [1, 4])
def test_a_class_weighs_what_it_is_given(batch: Batch, logits: Tensor, num_parts: int) -> None:
    task = LabelTask("label", LabelOutput(num_classes=CLASSES, class_weights=WEIGHTS))
    there = batch.labels >= 0
    losses = functional.cross_entropy(logits[there], batch.labels[there], reduction="none")
    weights = batch.weights[there] * torch.tensor(WEIGHTS)[batch.labels[there]]
    torch.testing.assert_close(loss_of(task, logits, batch, num_parts), (losses * weights).sum() / weights.sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_class_weights_are_none(batch: Batch, logits: Tensor, smoothing: float) -> None:
    plain = LabelTask("label", LabelOutput(num_classes=CLASSES), Training(smoothing))
    equal = replace(plain, output=LabelOutput(num_classes=CLASSES, class_weights=(2.0,) * CLASSES))
    mixed = torch.rand(8, CLASSES, generator=torch.Generator().manual_seed(1))
    for given in (batch, replace(batch, targets={"label": mixed / mixed.sum(dim=1, keepdim=True)})):
        torch.testing.assert_close(loss_of(equal, logits, given, 2), loss_of(plain, logits, given, 2))


def test_of_several_labels_each_class_weighs_what_it_is_given(batch: Batch, logits: Tensor) -> None:
    targets = (torch.rand(8, CLASSES, generator=torch.Generator().manual_seed(2)) > 0.6).float()
    batch = replace(batch, targets={"label": targets})
    task = LabelsTask("tags", LabelsOutput(num_classes=CLASSES, class_weights=WEIGHTS))
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    of_sample = (losses * torch.tensor(WEIGHTS)).sum(dim=1) / sum(WEIGHTS)
    expected = (of_sample * batch.weights).sum() / batch.weights.sum()
    torch.testing.assert_close(loss_of(task, logits, batch, 4), expected)
    plain = LabelsTask("tags", LabelsOutput(num_classes=CLASSES))
    equal = LabelsTask("tags", LabelsOutput(num_classes=CLASSES, class_weights=(3.0,) * CLASSES))
    torch.testing.assert_close(loss_of(equal, logits, batch, 1), loss_of(plain, logits, batch, 1))


@pytest.mark.parametrize("weights", [(), WEIGHTS])
@pytest.mark.parametrize("num_parts", [1, 4])
def test_a_softmax_over_several_labels_gives_each_an_equal_part(
    batch: Batch, logits: Tensor, num_parts: int, weights: tuple[float, ...]
) -> None:
    targets = (torch.rand(8, CLASSES, generator=torch.Generator().manual_seed(2)) > 0.6).float()
    targets[3] = 0
    batch = replace(batch, targets={"label": targets})
    task = LabelsTask("tags", LabelsOutput(num_classes=CLASSES, loss="softmax", class_weights=weights))
    total = count = torch.tensor(0.0)
    for row, target, weight in zip(logits, targets, batch.weights, strict=True):
        for number in target.nonzero()[:, 0].tolist():
            part = weight / target.sum() * (weights[number] if weights else 1)
            total, count = total - part * row.log_softmax(0)[number], count + part
    torch.testing.assert_close(loss_of(task, logits, batch, num_parts), total / count)


def test_a_softmax_is_judged_by_its_first_class_and_its_probabilities(
    batch: Batch, logits: Tensor, world: World
) -> None:
    targets = (torch.rand(8, CLASSES, generator=torch.Generator().manual_seed(2)) > 0.6).float()
    targets[3] = 0
    batch = replace(batch, targets={"label": targets}, arrays={"points": logits})
    output = LabelsOutput(num_classes=CLASSES, loss="softmax")
    found = evaluate(Says(), objective({"label": output}), [batch], world, ("points",)).flat()
    hits = [bool(target[row.argmax()]) for row, target in zip(logits, targets, strict=True) if target.any()]
    assert found["label/accuracy"] == pytest.approx(sum(hits) / 7)
    # A number added to all logits of a sample changes no probability, and so nothing that is judged.
    moved = replace(batch, arrays={"points": logits + torch.arange(8)[:, None]})
    again = evaluate(Says(), objective({"label": output}), [moved], world, ("points",)).flat()
    assert again == pytest.approx(found)


class Says(nn.Module):
    """Answers what the points say."""

    def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"label": arrays["points"]}


def judged(batch: Batch, logits: Tensor, world: Any, num_classes: int = CLASSES) -> Evaluation:  # noqa: ANN401
    goal = objective({"label": LabelOutput(num_classes=num_classes)})
    return evaluate(Says(), goal, [replace(batch, arrays={"points": logits})], world, ("points",))


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_class_is_told_of_at_any_world_size(batch: Batch, world: World, world_size: int) -> None:
    guesses = torch.tensor([0, 2, 2, 5, 0, 3, 5, 5])
    logits = 10.0 * functional.one_hot(guesses, CLASSES) + torch.arange(CLASSES)
    batch = replace(batch, keys=(*"abcdefg", ""))

    def rank(here: ThreadWorld) -> Evaluation:
        part = batch.micro_batches(world_size)[here.rank]
        return judged(part, logits.chunk(world_size)[here.rank], here)

    for found in on_ranks(world_size, rank) if world_size > 1 else [rank(world)]:  # type: ignore[arg-type]
        counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
        for truth, guess in [(0, 0), (1, 2), (2, 2), (2, 5), (3, 3), (5, 5)]:
            counts[truth, guess] += 1
        assert found.tables["label"]["confusion"] == counts.tolist()
        assert found.tables["label"]["accuracy_of_class"] == [1.0, 0.0, 0.5, 1.0, None, 1.0, None]
        # Class 1 is there and never answered; 4 and 6 are neither.
        f1 = [1, 0, 2 * 1 / (2 + 2), 1, 2 * 1 / (1 + 2)]
        expected = {"label/accuracy": 4 / 6, "label/f1": sum(f1) / 5}
        # Beside the answer, the four highest of the others: of the second sample 2, 6, 5, 4, 3 and no 1.
        expected["label/top_5_accuracy"] = 5 / 6
        assert found.flat() == pytest.approx(expected)
        assert found.num_judged == {"label": 6}


def test_of_very_many_classes_no_matrix_is_made_and_the_numbers_are_the_same(batch: Batch, world: World) -> None:
    few = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(3))
    many = functional.pad(few, (0, 1_001 - CLASSES), value=-99.0)
    # Up to 1 000 classes, those of ImageNet, there is one.
    assert len(judged(batch, many[:, :1_000], world, 1_000).tables["label"]["confusion"]) == 1_000
    found, expected = judged(batch, many, world, 1_001), judged(batch, few, world)
    assert "confusion" not in found.tables["label"]
    assert found.flat() == expected.flat()
    accuracies = expected.tables["label"]["accuracy_of_class"]
    assert found.tables["label"]["accuracy_of_class"] == [*accuracies, *[None] * (1_001 - CLASSES)]
