"""Autoregression: bits for each byte, token or element that comes next, and the fraction that is predicted."""

from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.order import random_numbers
from model.measures.losses import cross_entropy_sum
from model.outputs.autoregressive import AutoregressiveOutput
from model.stream import last_places
from trainer.distributed.world import World
from trainer.tasks.answer import Row, Telling
from trainer.tasks.metric import Measurement, Metric, Result, Sums, ratio
from trainer.tasks.task import Task


@dataclass(frozen=True)
class AutoregressiveTask(Task[AutoregressiveOutput]):
    """Cross-entropy in bits of what a stream has at its last places, as many as the network has latents."""

    kind: ClassVar[str] = "autoregressive"
    by_input: ClassVar[bool] = False

    def hides(self, batch: Batch, *, every: bool = False) -> dict[str, Tensor]:
        """Return which places training does not show, (B, M), if they are before the latents; an evaluation shows all.

        They are drawn from the seed, the batch's index and each sample's key: neither the number of ranks nor that of
        micro-batches changes them.
        """
        output = self.output
        if every or not output.prefix_dropout:
            return {}
        purpose = ("prefix dropout", self.name, self.training.seed, batch.index)
        rows = _hidden_rows(purpose, batch.keys, output.stream.num_places, output.prefix_dropout)
        return {output.target: batch.beside(rows)}

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the bytes, tokens or elements that are answered."""
        ids, weights = self.truths(batch)
        return (weights * (ids >= 0)).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the bits."""
        return cross_entropy_sum(answer, *self.truths(batch)) / log(2)

    def truths(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the true ids, (B, N), or levels, (B, N, channels), and their weights; -1 after the end of a stream."""
        output, stream = self.output, self.output.stream
        values = batch.arrays[output.target]
        ids = self.levels(values) if stream.num_channels else values.long()
        # Every place of the stream: lengths count entries of the first axis.
        counts = batch.lengths[output.target] * stream.places_of_entry
        places = last_places(counts, min(stream.num_latents, ids.shape[1]))
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        found = ids[rows, places]
        is_there = (places < counts[:, None]).view(*places.shape, *[1] * (found.ndim - 2))
        return found.masked_fill(~is_there, -1), batch.weights.view(-1, *[1] * (found.ndim - 1)).expand(found.shape)

    def levels(self, values: Tensor) -> Tensor:
        """Return the levels of the values of an array, (B, places, channels); those beyond the ends are the ends."""
        output = self.output
        parts = (values.float() - output.lowest) / (output.highest - output.lowest)
        levels = (parts * output.num_levels).floor().clamp(0, output.num_levels - 1).long()
        return levels.view(len(values), -1, output.stream.num_channels)

    def metrics(self) -> tuple[Metric, ...]:
        """Return the bits, and the fraction that is predicted."""
        bits = Metric(f"bits_per_{self.output.unit}", higher_is_better=False)
        return (bits, Metric("accuracy", "%", highest=1.0))

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:  # noqa: ARG002  # bits are numbers
        """Return the mean of the bits of each sample: how far the network expects what stands there."""
        ids, _ = self.truths(batch)
        bits = -answer.float().log_softmax(dim=-1).gather(-1, ids.clamp(min=0)[..., None])[..., 0] / log(2)
        is_there = ids >= 0
        means = bits.where(is_there, 0).flatten(1).sum(dim=1) / is_there.flatten(1).sum(dim=1)
        return [{f"{self.name}_bits_per_{self.output.unit}": mean} for mean in means.tolist()]

    def measurement(self) -> Measurement:
        """Return empty sums."""
        return _Bits(self)


class _Bits(Measurement):
    """The mean over everything that is answered, whatever sample it is of."""

    def __init__(self, task: AutoregressiveTask) -> None:
        self._task = task
        self._sums = Sums(4)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        ids, _ = self._task.truths(batch)
        asked = (ids >= 0) & judged.view(-1, *[1] * (ids.ndim - 1))
        bits = cross_entropy_sum(answer, ids, asked.float()) / log(2)
        is_right = (answer.argmax(dim=-1) == ids) & asked
        self._sums.add(bits, is_right.sum(), asked.sum(), asked.flatten(1).any(dim=1).sum())

    def result(self, world: World) -> Result:
        """See Measurement."""
        bits, right, asked, samples = self._sums.joined(world)
        values = {self._task.metrics()[0].name: ratio(bits, asked), "accuracy": ratio(right, asked)}
        return Result(values, int(samples))


# A step asks for the same rows in each of its parts.
@lru_cache(maxsize=8)
def _hidden_rows(purpose: tuple[str | int, ...], keys: tuple[str, ...], num_places: int, fraction: float) -> Tensor:
    rows = np.empty((len(keys), num_places), np.bool_)
    for row, key in enumerate(keys):
        generator = np.random.Generator(np.random.Philox(key=random_numbers.key(*purpose, key)))
        # A generator for each sample, by its key: in whose part of the batch the sample lies must not matter.
        rows[row] = generator.random(num_places, np.float32) < fraction
    return torch.from_numpy(rows)
