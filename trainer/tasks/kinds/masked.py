"""Masked modelling of patches: the error of the cells whose tokens were hidden."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.order import random_numbers
from model.outputs.masked import MaskedOutput
from trainer.tasks.answer import Row, Telling
from trainer.tasks.kinds.grid import CellsTask
from trainer.tasks.kinds.regression import METRICS, Errors
from trainer.tasks.metric import Measurement, Metric

# Below every index of a batch of training.
_EVALUATION = -1
"""The index of the batch by which an evaluation hides: the same of a sample each time."""


@dataclass(frozen=True)
class MaskedTask(CellsTask):
    """Mean error of the values in hidden cells, weighted by the samples' weights."""

    kind: ClassVar[str] = "masked"

    def hides(self, batch: Batch, *, every: bool = False) -> dict[str, Tensor]:
        """Return which tokens of the input are hidden, (B, M): by the seed, the batch's index, and each sample's key.

        Neither the number of ranks nor that of micro-batches changes what of a sample is hidden.
        """
        output = self._masked
        purpose = ("hidden", self.name, self.training.seed, _EVALUATION if every else batch.index)
        rows = _hidden_rows(purpose, batch.keys, prod(output.token_grid), output.num_hidden)
        return {output.target: batch.beside(rows)}

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the hidden values that are asked."""
        # Times the channels: a loss a value can be compared between inputs of one channel and of many.
        return (self._weights(batch)[:, None] * self._cells(batch)).sum() * self.output.num_channels

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the errors of the hidden values that were asked."""
        errors = answer.float().flatten(1, -2) - self.true_values(batch, self.points(batch)).float().flatten(1, -2)
        errors = errors.abs() if self.output.loss == "absolute" else errors.square()
        return (errors.sum(dim=-1) * self._cells(batch) * self._weights(batch)[:, None]).sum()

    def metrics(self) -> tuple[Metric, ...]:
        """Return the errors in the unit of the values, and R2."""
        return METRICS

    def measurement(self) -> Measurement:
        """Return empty sums."""
        return _HiddenErrors(self.hidden_truths, self.output.num_channels)

    def drawn(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the input with its hidden cells as they were answered."""
        hidden = self._cells(batch, every=True)[..., None]
        shown = self.true_values(batch).float().flatten(1, -2)
        return torch.where(hidden, answer.float().flatten(1, -2), shown)

    def compared(self, answer: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the true values, and those with their hidden cells as they were answered."""
        truth = self.true_values(batch)
        return truth, self.drawn(answer, batch).view_as(truth)

    def seen(self, batch: Batch) -> Tensor:
        """Return the true values, NaN in the cells whose tokens were hidden."""
        truth = self.true_values(batch).float()
        hidden = self._cells(batch, every=True)[..., None]
        return truth.flatten(1, -2).masked_fill(hidden, torch.nan).view_as(truth)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the input with its hidden part filled in; nothing of a sample that lacks it."""
        lengths = batch.lengths[self.output.target].tolist()
        found = super().rows(answer, batch, telling)
        return [row if length else {self.name: None} for row, length in zip(found, lengths, strict=True)]

    def hidden_truths(self, batch: Batch) -> Tensor:
        """Return the true values (B, cells, channels) in an evaluation, NaN where nothing was hidden."""
        truths = self.true_values(batch).float().flatten(1, -2)
        is_hidden = self._cells(batch, every=True) & (batch.lengths[self.output.target] > 0)[:, None]
        return truths.masked_fill(~is_hidden[..., None], torch.nan)

    @property
    def _masked(self) -> MaskedOutput:
        assert isinstance(self.output, MaskedOutput)
        return self.output

    def _cells(self, batch: Batch, *, every: bool = False) -> Tensor:
        """Return which of the cells that are asked lie in hidden tokens, (B, O)."""
        token_of_cell = _token_of_cell(tuple(self.output.shape), tuple(self._masked.token_grid))
        cells = self.hides(batch, every=every)[self.output.target][:, token_of_cell.to(batch.weights.device)]
        points = None if every else self.points(batch)
        return cells if points is None else cells[:, points]


class _HiddenErrors(Errors):
    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        super().add(answer.flatten(1, -2), batch, judged)


# A step asks for the same rows several times: for what is hidden, for the count and for the sum.
@lru_cache(maxsize=8)
def _hidden_rows(purpose: tuple[str | int, ...], keys: tuple[str, ...], num_tokens: int, num_hidden: int) -> Tensor:
    rows = torch.zeros(len(keys), num_tokens, dtype=torch.bool)
    for row, key in enumerate(keys):
        generator = np.random.Generator(np.random.Philox(key=random_numbers.key(*purpose, key)))
        # As many in every sample, by a choice without replacement: with a coin for each token the number would vary.
        rows[row, generator.choice(num_tokens, num_hidden, replace=False, shuffle=False)] = True
    return rows


# A function of the configuration: the same in every batch of a run.
@lru_cache(maxsize=8)
def _token_of_cell(shape: Sequence[int], token_grid: Sequence[int]) -> Tensor:
    """Return the token that each cell of a grid lies in, both row by row."""
    axes = [torch.arange(length) * tokens // length for length, tokens in zip(shape, token_grid, strict=True)]
    places = torch.meshgrid(*axes, indexing="ij")
    found = torch.zeros(tuple(shape), dtype=torch.int64)
    for place, tokens in zip(places, token_grid, strict=True):
        found = found * tokens + place
    return found.flatten()
