"""Optical flow: the distance between the predicted motion and the true one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.modalities.encoding import flo, motion_picture
from model.measures.losses import end_point_error_sum
from model.outputs.flow import FlowOutput
from trainer.distributed.world import World
from trainer.tasks.answer import AnsweredFile, Row, Telling
from trainer.tasks.metric import Measurement, Metric, Result, Sums, ratio
from trainer.tasks.task import Task


@dataclass(frozen=True)
class FlowTask(Task[FlowOutput]):
    """Mean distance in pixels over the pixels of known motion, over the samples that have frames."""

    kind: ClassVar[str] = "flow"
    # Its answer is about its own input, pixel by pixel: no other input alone could give it.
    by_input: ClassVar[bool] = False
    # A query a pixel: 182,528 for frames of 368 x 496.
    asks_many: ClassVar[bool] = True

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples that have frames."""
        return self._weights(batch).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the end-point errors."""
        return end_point_error_sum(answer, batch.targets[self.output.target], self._weights(batch))

    def metrics(self) -> tuple[Metric, ...]:
        """Return the end-point error."""
        return (Metric("end_point_error", "px", higher_is_better=False),)

    def measurement(self) -> Measurement:
        """Return an empty sum."""
        return EndPointError(self.output.target)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the motion as a .flo file, a picture of it, and of shards the true motion where it is known."""
        found: list[Row] = []
        truths = batch.targets[self.output.target].cpu().numpy()
        for motion, truth in zip(answer.float().cpu().numpy(), truths, strict=True):
            picture = AnsweredFile(motion, "png", motion_picture)
            row: Row = {self.name: AnsweredFile(motion, "flo", flo), f"{self.name}_picture": picture}
            if telling.with_truth:
                row[f"{self.name}_true"] = AnsweredFile(truth, "flo", flo) if np.isfinite(truth).any() else None
            found.append(row)
        return found

    def _weights(self, batch: Batch) -> Tensor:
        return batch.weights * (batch.lengths[self.output.target] > 0)


class EndPointError(Measurement):
    """Mean over the samples of their mean distance."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._sums = Sums(2)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        judged = judged & (batch.lengths[self._target] > 0)
        error = end_point_error_sum(answer, batch.targets[self._target], judged.float())
        # Each pair counts alike, however many of its pixels have a known motion.
        self._sums.add(error, judged.sum())

    def result(self, world: World) -> Result:
        """See Measurement."""
        total, count = self._sums.joined(world)
        return Result({"end_point_error": ratio(total, count)}, int(count))
