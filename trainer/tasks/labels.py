"""All labels of a sample: a yes or no for each class; mean average precision, and that of each class."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from model.measures.losses import binary_cross_entropy_sum
from model.measures.quality import average_precision
from model.outputs.label import LabelsOutput
from trainer.distributed.world import World
from trainer.tasks.answer import Row, Telling, ranked
from trainer.tasks.metric import Measurement, Metric, Result, listed
from trainer.tasks.task import Task

TARGET = "label"
"""float32 (B, classes) of a batch: 1 for every label of a sample."""


@dataclass(frozen=True)
class LabelsTask(Task[LabelsOutput]):
    """Binary cross-entropy, as the mean over classes, weighted by the samples' weights."""

    kind: ClassVar[str] = "labels"

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples."""
        return batch.weights.sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the binary cross-entropies."""
        class_weights = None
        if self.output.class_weights:
            class_weights = torch.tensor(self.output.class_weights, dtype=torch.float32, device=answer.device)
        return binary_cross_entropy_sum(answer, batch.targets[TARGET], batch.weights, class_weights)

    def metrics(self) -> tuple[Metric, ...]:
        """Return mean average precision, and F1 of the answers above one half."""
        return Metric("mean_average_precision", "%", highest=1.0), Metric("f1", "%", highest=1.0)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the classes of a probability above one half, the most likely ones with theirs, and the true ones."""
        logits = answer.float().cpu()
        found: list[Row] = []
        for scores, probabilities in zip(logits.numpy(), logits.sigmoid().numpy(), strict=True):
            chosen = [telling.class_name("", number) for number in (scores > 0).nonzero()[0].tolist()]
            found.append({self.name: chosen, **ranked(f"{self.name}_likely", telling, "", scores, probabilities)})
        if telling.with_truth and TARGET in batch.targets:
            for place, (row, truth) in enumerate(zip(found, batch.targets[TARGET].cpu(), strict=True)):
                row[f"{self.name}_true"] = [
                    telling.true_class("", place, number) for number in truth.nonzero().flatten().tolist()
                ]
        return found

    def measurement(self) -> Measurement:
        """Return an empty list of answers: an average precision needs all of them together."""
        return AnswersOfAll()


class AnswersOfAll(Measurement):
    """The answers and targets of all samples of all ranks."""

    def __init__(self) -> None:
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        self._logits.append(answer[judged].float().cpu())
        self._targets.append(batch.targets[TARGET][judged].bool().cpu())

    def result(self, world: World) -> Result:
        """See Measurement."""
        # A precision depends on the order of all answers: means of the ranks' precisions are not that of all samples.
        logits = torch.cat(world.gather(torch.cat(self._logits)))
        targets = torch.cat(world.gather(torch.cat(self._targets)))
        precisions = average_precision(logits, targets)
        yes = logits > 0
        both = (yes.sum(dim=0) + targets.sum(dim=0)).double()
        found = both > 0
        f1 = 2 * (yes & targets).sum(dim=0)[found].double() / both[found]
        values = {
            "mean_average_precision": float(precisions.nanmean()),
            "f1": float(f1.mean()) if bool(found.any()) else math.nan,
        }
        return Result(values, len(logits), {"average_precision_of_class": listed(precisions.tolist())})
