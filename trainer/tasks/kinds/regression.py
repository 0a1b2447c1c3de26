"""The errors of numbers: root mean squared error, mean absolute error, and R2 over all samples together."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from trainer.distributed.world import World
from trainer.tasks.metric import Measurement, Metric, Result, Sums, Table, listed, ratio

METRICS = (
    Metric("root_mean_squared_error", higher_is_better=False),
    Metric("mean_absolute_error", higher_is_better=False),
    Metric("r2"),
)
# Of a sum of squares in float64, more than rounding makes of it: without this a hundred times 1.1 would differ.
_ROUNDING = 1e-13


class Errors(Measurement):
    """Sums of errors, and moments of the true numbers, for each of the numbers of a sample or of its places."""

    def __init__(self, truths: Callable[[Batch], Tensor], num_values: int, offset: float = 0.0) -> None:
        """Judge by (B, num_values) or (B, places, num_values), NaN where there is none; `offset` is near their mean."""
        self._truths, self._num_values, self._offset = truths, num_values, offset
        self._sums = Sums(5 * num_values + 1)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        truths = self._truths(batch).double()
        known = truths.isfinite() & judged.view(-1, *[1] * (truths.ndim - 1))
        # Filled and not multiplied by 0: what is unknown is NaN, and NaN times 0 is NaN.
        truths = truths.masked_fill(~known, 0.0)
        errors = (answer.double() - truths).masked_fill(~known, 0.0)
        # About the offset: of large numbers the squares alone would lose the variance.
        centred = (truths - self._offset).masked_fill(~known, 0.0)
        terms = torch.stack([known.double(), errors.square(), errors.abs(), centred, centred.square()])
        self._sums.add(*terms.flatten(1, -2).sum(dim=1).flatten(), known.flatten(1).any(dim=1).sum())

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
        tables: dict[str, Table] = {
            "root_mean_squared_error_of_value": listed(of_each),
            "r2_of_value": listed(explained),
        }
        return Result(values, int(num_judged), tables if self._num_values > 1 else {})


def _r2(count: float, squared_errors: float, total: float, total_of_squares: float) -> float:
    """Return 1 - the squared errors by the squared distances from the mean; NaN where all true numbers are equal."""
    spread = total_of_squares - total**2 / count if count else 0.0
    return 1 - squared_errors / spread if spread > _ROUNDING * total_of_squares else math.nan
