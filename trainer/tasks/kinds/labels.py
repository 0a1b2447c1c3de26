"""All labels of a sample, by a sigmoid a class or one softmax; mean average precision, and that of each class."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from model.measures.losses import binary_cross_entropy_sum, soft_cross_entropy_sum
from model.measures.quality import average_precision
from model.outputs.label import LabelsOutput
from trainer.distributed.world import World
from trainer.tasks.answer import Row, Telling, ranked
from trainer.tasks.metric import Measurement, Metric, Result, Table, listed, ratio
from trainer.tasks.task import Task

TARGET = "label"
"""float32 (B, classes) of a batch: 1 for every label of a sample."""


@dataclass(frozen=True)
class LabelsTask(Task[LabelsOutput]):
    """Binary cross-entropy as the mean over classes, or that of one softmax, weighted by the samples' weights."""

    kind: ClassVar[str] = "labels"

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples; by a softmax of those that have a label."""
        if not self._is_softmax:
            return batch.weights.sum()
        return (batch.weights * self._parts(batch).sum(dim=1)).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the cross-entropies."""
        if self._is_softmax:
            return soft_cross_entropy_sum(answer, self._parts(batch), batch.weights)
        class_weights = None
        if self.output.class_weights:
            class_weights = torch.tensor(self.output.class_weights, device=answer.device)
        return binary_cross_entropy_sum(answer, batch.targets[TARGET], batch.weights, class_weights)

    def metrics(self) -> tuple[Metric, ...]:
        """Return mean average precision; F1 of the answers above one half, or how often the first is a true one."""
        second = "accuracy" if self._is_softmax else "f1"
        return Metric("mean_average_precision", "%", highest=1.0), Metric(second, "%", highest=1.0)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the classes of a probability above one half, the most likely ones with theirs, and the true ones."""
        logits = answer.float().cpu()
        probabilities = logits.softmax(dim=-1) if self._is_softmax else logits.sigmoid()
        found: list[Row] = []
        for scores, of_classes in zip(logits.numpy(), probabilities.numpy(), strict=True):
            # A sigmoid of a logit above 0 is above one half; by the logit, which is not rounded to it.
            is_chosen = of_classes > 0.5 if self._is_softmax else scores > 0
            chosen = [telling.class_name("", number) for number in is_chosen.nonzero()[0].tolist()]
            found.append({self.name: chosen, **ranked(f"{self.name}_likely", telling, "", scores, of_classes)})
        if telling.with_truth and TARGET in batch.targets:
            for place, (row, truth) in enumerate(zip(found, batch.targets[TARGET].cpu(), strict=True)):
                row[f"{self.name}_true"] = [
                    telling.true_class("", place, number) for number in truth.nonzero().flatten().tolist()
                ]
        return found

    def measurement(self) -> Measurement:
        """Return an empty list of answers: an average precision needs all of them together."""
        return AnswersOfAll(is_softmax=self._is_softmax)

    @property
    def _is_softmax(self) -> bool:
        return self.output.loss == "softmax"

    def _parts(self, batch: Batch) -> Tensor:
        """Return the parts of each sample's classes, with their weights; all 0 of a sample without a label."""
        targets = batch.targets[TARGET]
        # At least 1: a sample without a label has the parts 0, and not 0 / 0.
        parts = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)
        if not self.output.class_weights:
            return parts
        return parts * torch.tensor(self.output.class_weights, device=parts.device)


class AnswersOfAll(Measurement):
    """The answers and targets of all samples of all ranks."""

    def __init__(self, *, is_softmax: bool) -> None:
        self._is_softmax = is_softmax
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        # In host memory: a whole split's answers would take memory from the network's activations.
        self._logits.append(answer[judged].float().cpu())
        self._targets.append(batch.targets[TARGET][judged].bool().cpu())

    def result(self, world: World) -> Result:
        """See Measurement."""
        # A precision depends on the order of all answers: means of the ranks' precisions are not that of all samples.
        logits = torch.cat(world.gather(torch.cat(self._logits)))
        targets = torch.cat(world.gather(torch.cat(self._targets)))
        # Of a softmax the logits of two samples cannot be compared, only their probabilities. A sigmoid keeps their
        # order and is left out: large logits would round to one number and become ties.
        precisions = average_precision(logits.log_softmax(dim=-1) if self._is_softmax else logits, targets)
        # NaN is a class without samples in this split: it has no precision, and takes no part in the mean.
        values = {"mean_average_precision": float(precisions.nanmean())}
        tables: dict[str, Table] = {"average_precision_of_class": listed(precisions.tolist())}
        if self._is_softmax:
            labelled = targets.any(dim=1)
            hits = targets.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]
            values["accuracy"] = ratio(int(hits.sum()), int(labelled.sum()))
            return Result(values, len(logits), tables)
        yes = logits > 0
        both = (yes.sum(dim=0) + targets.sum(dim=0)).double()
        found = both > 0
        f1 = 2 * (yes & targets).sum(dim=0)[found].double() / both[found]
        # NaN of nothing.
        values["f1"] = float(f1.mean())
        return Result(values, len(logits), tables)
