"""An input that is reconstructed: the error of each cell; signal-to-noise ratio and root mean squared error."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.order import random_numbers
from model.measures.losses import absolute_error_sum, squared_error_sum
from model.measures.quality import peak_signal_to_noise
from model.outputs.grid import CellsOutput
from trainer.distributed.world import World
from trainer.tasks.answer import AnsweredFile, Row, Telling
from trainer.tasks.metric import Measurement, Metric, Result, Sums, ratio
from trainer.tasks.task import Task

PIXEL_RANGE = 255.0


@dataclass(frozen=True)
class CellsTask(Task[CellsOutput]):
    """Mean error of an input that is reconstructed (Perceiver IO, section 4.3), over the samples that have it.

    What pads a short recording or clip is to be answered too: as silence, and as black.
    """

    by_input: ClassVar[bool] = False
    asks_many: ClassVar[bool] = True
    is_compared: ClassVar[bool] = True

    @property
    def shows_unit_range(self) -> bool:
        """Whether the range of the values is known."""
        return bool(self.output.value_range)

    def points(self, batch: Batch, *, every: bool = False) -> Tensor | None:
        """Return the cells that training asks of this batch: a function of the seed and the batch's index.

        Who was trained on some cells must be asked for every one in the same way: the released code, and so the
        network, places the cells of a subset otherwise than those of the whole grid (docs/parity.md).
        """
        if not self.output.train_queries:
            return None
        if every:
            return torch.arange(self.output.num_cells, device=batch.weights.device)
        # The same for every sample of the global batch, however it is cut. numpy promises the numbers of Philox for
        # every release, but not what choice() makes of them: a test holds those.
        key = random_numbers.key("queries", self.name, self.training.seed, batch.index)
        generator = np.random.Generator(np.random.Philox(key=key))
        cells = generator.choice(self.output.num_cells, self.output.train_queries, replace=False, shuffle=False)
        return batch.beside(torch.from_numpy(cells))

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples that have the input."""
        return self._weights(batch).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the mean errors of the cells that were asked."""
        error_sum = absolute_error_sum if self.output.loss == "absolute" else squared_error_sum
        return error_sum(answer, self.true_values(batch, self.points(batch)), self._weights(batch))

    def true_values(self, batch: Batch, points: Tensor | None = None) -> Tensor:
        """Return the true values, (B, *shape, channels), or (B, O, channels) of the points: pixels in [0, 1]."""
        values, output = batch.arrays[self.output.target], self.output
        if points is None:
            values = values.reshape(len(values), *output.shape, output.num_channels)
        else:
            values = values.reshape(len(values), output.num_cells, output.num_channels)[:, points]
        return values / PIXEL_RANGE if values.dtype == torch.uint8 else values

    def metrics(self) -> tuple[Metric, ...]:
        """Return the signal-to-noise ratio where the range of the values is known, and the root mean squared error."""
        error = Metric("root_mean_squared_error", higher_is_better=False)
        return (Metric("psnr", "dB"), error) if self.output.value_range else (error,)

    def measurement(self) -> Measurement:
        """Return empty sums."""
        return Errors(self)

    def compared(self, answer: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the true values and the answered ones."""
        truth = self.true_values(batch)
        return truth, answer.float().view_as(truth)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the reconstruction as a file of the input's modality."""
        section = telling.inputs.get(self.output.target)
        drawn = self.drawn(answer, batch).cpu().numpy()
        arrays = drawn if section is None else drawn.reshape(len(drawn), *section.shape)
        return [{self.name: AnsweredFile.of_input(array, section)} for array in arrays]

    def drawn(self, answer: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002  # where some of it was shown
        """Return the values (B, ...) that a user is given of an answer, in fp32."""
        return answer.float()

    def _weights(self, batch: Batch) -> Tensor:
        return batch.weights * (batch.lengths[self.output.target] > 0)


@dataclass(frozen=True)
class GridTask(CellsTask):
    """Autoencoding: all that is to be reconstructed is shown."""

    kind: ClassVar[str] = "grid"


class Errors(Measurement):
    """The mean over samples of their signal-to-noise ratio, and of all values the root of the mean squared error."""

    def __init__(self, task: CellsTask) -> None:
        self._task = task
        self._sums = Sums(3)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        judged = judged & (batch.lengths[self._task.output.target] > 0)
        truth, answer = self._task.compared(answer, batch)
        errors = (answer.double() - truth.double()).square().flatten(1).mean(dim=1)
        # Without a range the ratios mean nothing, and are no metric of the task.
        ratios = peak_signal_to_noise(answer, truth, peak=self._task.output.value_range)
        self._sums.add(ratios[judged].sum(), errors[judged].sum(), judged.sum())

    def result(self, world: World) -> Result:
        """See Measurement."""
        ratios, squares, count = self._sums.joined(world)
        values = {"psnr": ratio(ratios, count), "root_mean_squared_error": math.sqrt(ratio(squares, count))}
        wanted = {metric.name for metric in self._task.metrics()}
        return Result({name: value for name, value in values.items() if name in wanted}, int(count))
