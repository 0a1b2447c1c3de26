"""Numbers of a sample: regression; root mean squared error, mean absolute error, and R2."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from data_shards.loading.batch import Batch
from model.measures.losses import regression_error_sum
from model.outputs.value import ValueOutput
from trainer.tasks.answer import Row, Telling, numbers
from trainer.tasks.kinds.regression import METRICS, Errors
from trainer.tasks.metric import Measurement, Metric
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
        # NaN is a number that is not known; infinite ones are refused when shards are built.
        return (batch.weights[:, None] * self.truths(batch).isfinite()).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the errors."""
        output = self.output
        truths, weights = self.truths(batch), batch.weights[:, None]
        delta = output.huber_delta
        return regression_error_sum(answer, truths, weights, scale=output.scale, loss=output.loss, delta=delta)

    def metrics(self) -> tuple[Metric, ...]:
        """Return the errors in the unit of the numbers, and R2."""
        return METRICS

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the numbers, and the true ones where the samples bring them."""
        found = super().rows(answer, batch, telling)
        if telling.with_truth and self.output.target in batch.targets:
            for row, truth in zip(found, self.truths(batch).cpu().numpy(), strict=True):
                row[f"{self.name}_true"] = numbers(truth)
        return found

    def measurement(self) -> Measurement:
        """Return empty sums."""
        return Errors(self.truths, self.output.num_values, self.output.offset)
