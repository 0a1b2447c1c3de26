"""Objectives on batches with targets: each is its definition, and does not depend on how the batch is cut."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from trainer.objective import Classification, HiddenWords, Objective, SeveralLabels

CLASSES, LENGTH = 5, 7


class Answers(nn.Module):
    """Answers with its inputs."""

    def forward(self, arrays: dict[str, Tensor], _lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"label": arrays["label"], "text": arrays["text"]}


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    soft = torch.rand(6, CLASSES)
    return Batch(
        arrays={"label": torch.randn(6, CLASSES), "text": torch.randn(6, LENGTH, 262)},
        lengths={},
        labels=torch.tensor([0, 1, 2, 3, 4, -1]),
        weights=torch.tensor([1.0, 0.5, 1, 1, 1, 1]),
        keys=tuple("abcdef"),
        targets={
            "label": soft / soft.sum(dim=1, keepdim=True),
            "text": torch.randint(0, 2, (6, LENGTH), dtype=torch.int16) * 70,
        },
    )


def soft(batch: Batch) -> Tensor:
    targets = 0.9 * batch.targets["label"] + 0.1 / CLASSES
    losses = -(targets * batch.arrays["label"].log_softmax(dim=1)).sum(dim=1) * batch.weights
    return losses[:5].sum() / batch.weights[:5].sum()


def several(batch: Batch) -> Tensor:
    yes = batch.arrays["label"].sigmoid()
    losses = -(batch.targets["label"] * yes.log() + (1 - batch.targets["label"]) * (1 - yes).log()).mean(dim=1)
    return (losses * batch.weights).sum() / batch.weights.sum()


def hidden(batch: Batch) -> Tensor:
    total, count = torch.zeros(()), torch.zeros(())
    for logits, ids, weight in zip(batch.arrays["text"], batch.targets["text"], batch.weights, strict=True):
        for place in ids.nonzero().flatten():
            total -= weight * logits[place].log_softmax(dim=0)[70]
            count += weight
    return total / count


@pytest.mark.parametrize(
    ("objective", "definition"),
    [(Classification(label_smoothing=0.1), soft), (SeveralLabels(), several), (HiddenWords(), hidden)],
)
def test_a_loss_is_its_definition_however_the_batch_is_cut(
    batch: Batch, objective: Objective, definition: Callable[[Batch], Tensor]
) -> None:
    (task,) = objective.task_weights
    count = objective.counts(batch)[task]
    for num_parts in (1, 2, 3):
        parts = batch.micro_batches(num_parts)
        loss = sum(objective.sums(Answers(), part)[task] for part in parts) / count
        # Sums of a few dozen float32 terms in another order.
        torch.testing.assert_close(loss, definition(batch), rtol=1e-5, atol=1e-6)


def test_mixed_labels_that_are_certain_are_labels(batch: Batch) -> None:
    certain = torch.nn.functional.one_hot(batch.labels.clamp(min=0), CLASSES).float()
    plain = Batch(batch.arrays, batch.lengths, batch.labels, batch.weights, batch.keys)
    sure = Batch(batch.arrays, batch.lengths, batch.labels, batch.weights, batch.keys, {"label": certain})
    for smoothing in (0.0, 0.1):
        objective = Classification(smoothing)
        expected = objective.sums(Answers(), plain)["label"]
        torch.testing.assert_close(objective.sums(Answers(), sure)["label"], expected)
