"""An answer with an error metric: by `plugins: [angle.py]`, `data.values: [a]` and `outputs: {a: {kind: angle}}`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from perceiver_trainer import Batch, Measurement, Metric, Result, Row, Sums, Task, Telling, ValueOutput, World


@dataclass(frozen=True, kw_only=True)
class AngleOutput(ValueOutput):
    """An angle, answered as a point (x, y) of the plane. Its target is one number of the sample, in degrees."""

    kind: Literal["angle"] = "angle"
    num_answered: ClassVar[int] = 2


@dataclass(frozen=True)
class AngleTask(Task[AngleOutput]):
    """The squared distance to the point of the unit circle at the true angle, as the mean over the known angles."""

    kind: ClassVar[str] = "angle"

    def count(self, batch: Batch) -> Tensor:
        return (batch.weights * batch.targets[self.output.target][:, 0].isfinite()).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        (x, y), truth = answer.float().unbind(dim=1), batch.targets[self.output.target][:, 0].deg2rad()
        # An unknown angle is NaN, and NaN times 0 is NaN.
        known, angle = truth.isfinite(), truth.nan_to_num()
        return (batch.weights * known * ((x - angle.cos()).square() + (y - angle.sin()).square())).sum()

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("angular_error", "degrees", higher_is_better=False),)

    def measurement(self) -> Measurement:
        return _MeanError(self)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        return [{self.name: degrees} for degrees in _degrees(answer).tolist()]


class _MeanError(Measurement):
    def __init__(self, task: AngleTask) -> None:
        self.task, self.sums = task, Sums(2)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        truth = batch.targets[self.task.output.target][:, 0]
        known, turned = judged & truth.isfinite(), (_degrees(answer) - truth + 180) % 360 - 180
        self.sums.add(turned.abs().where(known, 0.0).sum(), known.sum())

    def result(self, world: World) -> Result:
        total, number = self.sums.joined(world)
        return Result({"angular_error": total / number if number else float("nan")}, int(number))


def _degrees(answer: Tensor) -> Tensor:
    return answer[:, 1].float().atan2(answer[:, 0].float()).rad2deg()
