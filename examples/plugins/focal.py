"""A task with its loss and metric, by `plugins: [focal.py]` and `outputs: {label: {kind: focal, num_classes: 10}}`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from perceiver_trainer import Batch, LabelOutput, LabelTask, Measurement, Metric, Result, Sums, World


@dataclass(frozen=True, kw_only=True)
class FocalOutput(LabelOutput):
    """A class of a sample, as of kind label; what is easy weighs less."""

    kind: Literal["focal"] = "focal"
    gamma: float = 2.0
    """How much less; 0 is the cross-entropy."""


@dataclass(frozen=True)
class FocalTask(LabelTask):
    """The sum of -(1 - p) ** gamma * log p, p the probability of the true class. It is divided by LabelTask.count."""

    kind: ClassVar[str] = "focal"

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the sum over the samples that have a label."""
        found, known = self.probabilities(answer, batch), self.classes(batch) >= 0
        return (batch.weights * known * -((1 - found) ** self.output.gamma) * found.log()).sum()

    def probabilities(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the probability of each sample's true class, (B,)."""
        truth = self.classes(batch).clamp(min=0)[:, None]
        return answer.float().softmax(dim=1).gather(1, truth)[:, 0].clamp(min=1e-30)

    def metrics(self) -> tuple[Metric, ...]:
        """Return what it is judged by; the first says which checkpoint is the best."""
        return (Metric("accuracy", "%", highest=1.0), Metric("confidence", "%", highest=1.0))

    def measurement(self) -> Measurement:
        """Return an empty measurement."""
        return _Confidence(self)


class _Confidence(Measurement):
    """Sums over the samples of all ranks: of right answers, of probabilities, of samples."""

    def __init__(self, task: FocalTask) -> None:
        self.task, self.sums = task, Sums(3)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        truth, found = self.task.classes(batch), self.task.probabilities(answer, batch)
        known, right = judged & (truth >= 0), answer.argmax(dim=1) == truth
        self.sums.add((right & known).sum(), torch.where(known, found, 0).sum(), known.sum())

    def result(self, world: World) -> Result:
        right, found, number = self.sums.joined(world)
        return Result({"accuracy": right / max(number, 1), "confidence": found / max(number, 1)}, int(number))
