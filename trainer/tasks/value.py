"""Numbers of a sample: regression; root mean squared error, mean absolute error, and R2."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from model.outputs.losses import regression_error_sum
from model.outputs.value import ValueOutput
from trainer.distributed.world import World
from trainer.tasks.metric import Measurement, Metric, Result, Sums, listed, ratio
from trainer.tasks.task import Task


@dataclass(frozen=True)
class ValueTask(Task[ValueOutput]):
    """Error in units of `scale`, as the mean over the numbers that are known: one that is NaN is not."""

    kind: ClassVar[str] = "value"

    def truths(self, batch: Batch) -> Tensor:
        """Return the true numbers, (B, num_values) float32, NaN where there is none."""
        return batch.targets[self.output.target]

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the numbers that are known."""
        return (batch.weights[:, None] * self.truths(batch).isfinite()).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the errors."""
        output = self.output
        truths, weights = self.truths(batch), batch.weights[:, None]
        delta = output.huber_delta
        return regression_error_sum(answer, truths, weights, scale=output.scale, loss=output.loss, delta=delta)

    def metrics(self) -> tuple[Metric, ...]:
        """Return the errors in the unit of the numbers, and R2."""
        return (
            Metric("root_mean_squared_error", higher_is_better=False),
            Metric("mean_absolute_error", higher_is_better=False),
            Metric("r2"),
        )

    def measurement(self) -> Measurement:
        """Return empty sums."""
        return Errors(self)


class Errors(Measurement):
    """Sums of errors, and moments of the true numbers, for each of the numbers of a sample."""

    def __init__(self, task: ValueTask) -> None:
        self._task = task
        self._num_values = task.output.num_values
        self._sums = Sums(5 * self._num_values + 1)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        truths = self._task.truths(batch)
        known = truths.isfinite() & judged[:, None]
        truths = truths.double().masked_fill(~known, 0.0)
        errors = (answer.double() - truths).masked_fill(~known, 0.0)
        # About the offset, which is near the mean: of large numbers the squares alone would lose the variance.
        centred = (truths - self._task.output.offset).masked_fill(~known, 0.0)
        terms = torch.stack([known.double(), errors.square(), errors.abs(), centred, centred.square()])
        self._sums.add(*terms.sum(dim=1).flatten(), known.any(dim=1).sum())

    def result(self, world: World) -> Result:
        """See Measurement."""
        *terms, num_judged = self._sums.joined(world)
        counts, squares, absolutes, sums, sums_of_squares = (
            terms[start : start + self._num_values] for start in range(0, len(terms), self._num_values)
        )
        explained = [_r2(*column) for column in zip(counts, squares, sums, sums_of_squares, strict=True)]
        known = [value for value in explained if not math.isnan(value)]
        values = {
            "root_mean_squared_error": math.sqrt(ratio(sum(squares), sum(counts))),
            "mean_absolute_error": ratio(sum(absolutes), sum(counts)),
            "r2": ratio(sum(known), len(known)),
        }
        of_each = [math.sqrt(ratio(square, count)) for square, count in zip(squares, counts, strict=True)]
        tables = {"root_mean_squared_error_of_value": listed(of_each), "r2_of_value": listed(explained)}
        return Result(values, int(num_judged), tables if self._num_values > 1 else {})


def _r2(count: float, squared_errors: float, total: float, total_of_squares: float) -> float:
    """1 - the squared errors by the squared distances from the mean; NaN where all true numbers are equal."""
    spread = total_of_squares - total**2 / count if count else 0.0
    return 1 - squared_errors / spread if spread > 0 else math.nan
