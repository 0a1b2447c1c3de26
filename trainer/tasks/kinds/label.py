"""The class of a sample: cross-entropy, accuracy, and accuracy per class."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from data_shards.format.annotations import NO_LABEL
from data_shards.loading.batch import Batch
from model.measures.losses import cross_entropy_sum, labelled, soft_cross_entropy_sum
from model.outputs.label import LabelOutput
from trainer.distributed.world import World
from trainer.tasks.answer import Row, Telling, ranked
from trainer.tasks.metric import Measurement, Metric, Result, Table, listed, ratio
from trainer.tasks.task import Task

MIXED = "label"
"""The target of labels that mixup made distributions of."""
_ACCURACY = Metric("accuracy", "%", highest=1.0)
_TOP_5 = Metric("top_5_accuracy", "%", highest=1.0)
_F1 = Metric("f1", "%", highest=1.0)
_TOP = 5
_MOST_TABLED = 1_000
"""Classes of a confusion matrix that is written out."""


@dataclass(frozen=True)
class LabelTask(Task[LabelOutput]):
    """Cross-entropy of a label, weighted by the samples' weights, over the samples that have one."""

    kind: ClassVar[str] = "label"

    def classes(self, batch: Batch) -> Tensor:
        """Return the true class of each sample, (B,) int64, NO_LABEL where there is none."""
        return batch.targets[self.output.target] if self.output.target else batch.labels

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the labelled samples."""
        if (mixed := self._mixed(batch)) is not None:
            # The divisor is the weight that the sum gives: of a mixed label that of its classes, by their shares.
            return (self._sample_weights(batch) * self._of_mixed(mixed)).sum()
        return self._sample_weights(batch).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the cross-entropies, where labels were mixed with the mixed ones."""
        smoothing = self.training.label_smoothing
        if (mixed := self._mixed(batch)) is None:
            weights = self._sample_weights(batch)
            return cross_entropy_sum(answer, self.classes(batch), weights, smoothing=smoothing)
        # As torch smooths one class: without class weights, a label that was not mixed has the same loss either way.
        smoothed = (1 - smoothing) * mixed + smoothing / answer.shape[-1]
        if self.output.class_weights:
            smoothed = smoothed * self._class_weights(smoothed)
        return soft_cross_entropy_sum(answer, smoothed, self._sample_weights(batch))

    def metrics(self) -> tuple[Metric, ...]:
        """Return accuracy, top-5 accuracy where there are more classes, and F1."""
        return (_ACCURACY, *((_TOP_5,) if self.output.num_classes > _TOP else ()), _F1)

    def measurement(self) -> Measurement:
        """Return an empty confusion matrix."""
        return Confusion(self)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the most likely classes with their probabilities, and the true class where the samples bring it."""
        target = self.output.target
        logits = answer.float().cpu()
        pairs = zip(logits.numpy(), logits.softmax(dim=-1).numpy(), strict=True)
        found = [ranked(self.name, telling, target, *pair) for pair in pairs]
        if telling.with_truth and (not target or target in batch.targets):
            for place, (row, truth) in enumerate(zip(found, self.classes(batch).tolist(), strict=True)):
                row[f"{self.name}_true"] = None if truth == NO_LABEL else telling.true_class(target, place, truth)
        return found

    def _mixed(self, batch: Batch) -> Tensor | None:
        return None if self.output.target else batch.targets.get(MIXED)

    def _sample_weights(self, batch: Batch) -> Tensor:
        """Return the weight of each sample with a label; that of a mixed one has its classes' weights in the target."""
        classes = self.classes(batch)
        weights = labelled(classes, batch.weights)
        if not self.output.class_weights or self._mixed(batch) is not None:
            return weights
        # A missing label is below 0 and no index; its weight is 0 already.
        return weights * self._class_weights(weights)[classes.clamp(min=0)]

    def _of_mixed(self, mixed: Tensor) -> Tensor:
        """Return the weight that the classes of a mixed label have together."""
        if not self.output.class_weights:
            return torch.ones_like(mixed[:, 0])
        return (mixed * self._class_weights(mixed)).sum(dim=1)

    def _class_weights(self, like: Tensor) -> Tensor:
        return torch.tensor(self.output.class_weights, device=like.device)


class Confusion(Measurement):
    """Counts of each true class by predicted class, and of the true class among the five most likely."""

    def __init__(self, task: LabelTask) -> None:
        self._task = task
        num_classes = task.output.num_classes
        # Of many classes only what each comes to is counted: a matrix of 21 000 has 3 GB.
        self._is_whole = num_classes <= _MOST_TABLED
        rows = num_classes if self._is_whole else 3
        self._counts = torch.zeros((rows, num_classes), dtype=torch.int64)
        self._in_top = torch.zeros(1, dtype=torch.int64)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        truths = self._task.classes(batch)
        judged = judged & (truths != NO_LABEL)
        truths, answer = truths[judged], answer[judged]
        guesses = answer.argmax(dim=-1)
        # Counted where the answers are: to fetch them would make the host wait for every batch.
        self._counts = self._counts.to(answer.device)
        self._in_top = self._in_top.to(answer.device)
        ones = torch.ones_like(truths)
        if self._is_whole:
            self._counts.index_put_((truths, guesses), ones, accumulate=True)
        else:
            hits = truths[guesses == truths]
            for row, classes in enumerate((truths, guesses, hits)):
                self._counts[row].index_put_((classes,), torch.ones_like(classes), accumulate=True)
        top = answer.topk(min(_TOP, answer.shape[-1])).indices
        self._in_top += (top == truths[:, None]).any(dim=-1).sum()

    def result(self, world: World) -> Result:
        """See Measurement."""
        counts = world.sum(self._counts.to(world.device)).cpu()
        in_top = int(world.sum(self._in_top.to(world.device)))
        if self._is_whole:
            true, guessed, hits = counts.sum(dim=1), counts.sum(dim=0), counts.diagonal()
        else:
            true, guessed, hits = counts
        num_judged = int(true.sum())
        values = {
            "accuracy": ratio(int(hits.sum()), num_judged),
            "top_5_accuracy": ratio(in_top, num_judged),
            "f1": _mean_f1(true, guessed, hits),
        }
        wanted = {metric.name for metric in self._task.metrics()}
        # 0 / 0 of a class without samples is NaN, for which `listed` writes null.
        tables: dict[str, Table] = {"accuracy_of_class": listed((hits.double() / true).tolist())}
        if self._is_whole:
            tables["confusion"] = counts.tolist()
        return Result({name: value for name, value in values.items() if name in wanted}, num_judged, tables)


def _mean_f1(true: Tensor, guessed: Tensor, hits: Tensor) -> float:
    """Return the mean over the classes that are there or were answered of 2 hits / (true + guessed); NaN of none."""
    both = (true + guessed).double()
    # A class that is neither there nor answered has no F1; as a 0 it would lower the mean of every small split.
    found = both > 0
    return float((2 * hits.double()[found] / both[found]).mean())
