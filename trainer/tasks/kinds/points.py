"""Values at places that each sample names: the error at those whose value is known."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.order import random_numbers
from model.measures.losses import regression_error_sum
from model.outputs.points import PointsOutput
from trainer.tasks.answer import AnsweredFile, Row, Telling
from trainer.tasks.kinds.regression import METRICS, Errors
from trainer.tasks.metric import Measurement, Metric
from trainer.tasks.task import Task


@dataclass(frozen=True)
class PointsTask(Task[PointsOutput]):
    """Mean error of the values that are known; those beyond a sample's length, and NaN, are not."""

    kind: ClassVar[str] = "points"
    by_input: ClassVar[bool] = False
    asks_many: ClassVar[bool] = True

    def points(self, batch: Batch, *, every: bool = False) -> Tensor | None:
        """Return the places that training asks of this batch: a function of the seed and the batch's index."""
        num_points = batch.arrays[self.output.coordinates].shape[1]
        if every or not self.output.train_points or self.output.train_points >= num_points:
            return None
        # The same for every sample of the global batch, however it is cut.
        key = random_numbers.key("points", self.name, self.training.seed, batch.index)
        generator = np.random.Generator(np.random.Philox(key=key))
        places = generator.choice(num_points, self.output.train_points, replace=False, shuffle=False)
        return batch.beside(torch.from_numpy(places))

    def truths(self, batch: Batch) -> Tensor:
        """Return the true values at all places, (B, N, channels) float32, NaN where there is none."""
        values = batch.arrays[self.output.target]
        values = values.reshape(*values.shape[:2], self.output.num_channels).float()
        numbers = torch.arange(values.shape[1], device=values.device)
        # NAME.coordinates is as long as NAME.
        names = (self.output.target, self.output.coordinates.partition(".")[0])
        target, places = (batch.lengths[name] for name in names)
        is_there = numbers < torch.minimum(target, places)[:, None]
        return torch.where(is_there[..., None], values, torch.nan)

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the values that are asked and known."""
        return (batch.weights[:, None, None] * self._asked(batch).isfinite()).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the errors."""
        weights = batch.weights[:, None, None].expand(-1, answer.shape[1], 1).flatten(0, 1)
        return regression_error_sum(
            answer.flatten(0, 1), self._asked(batch).flatten(0, 1), weights, scale=1.0, loss=self.output.loss, delta=1.0
        )

    def metrics(self) -> tuple[Metric, ...]:
        """Return the errors in the unit of the values, and R2."""
        return METRICS

    def measurement(self) -> Measurement:
        """Return empty sums."""
        return Errors(self.truths, self.output.num_channels)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the values at the places that a sample has, a row a place, and of shards the true ones."""
        lengths = batch.lengths[self.output.coordinates.partition(".")[0]].tolist()
        answers = answer.float().cpu().numpy()
        found: list[Row] = [
            {self.name: AnsweredFile.of_numbers(values[:length])}
            for values, length in zip(answers, lengths, strict=True)
        ]
        if telling.with_truth and self.output.target in batch.arrays:
            for row, truth, length in zip(found, self.truths(batch).cpu().numpy(), lengths, strict=True):
                is_known = np.isfinite(truth[:length]).any()
                row[f"{self.name}_true"] = AnsweredFile.of_numbers(truth[:length]) if is_known else None
        return found

    def _asked(self, batch: Batch) -> Tensor:
        points = self.points(batch)
        truths = self.truths(batch)
        return truths if points is None else truths[:, points]
