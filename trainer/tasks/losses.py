"""What each output of the network is trained for: one loss a task, as a sum over samples with an explicit count."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.order import random_numbers
from model.config.outputs import GridOutput
from model.outputs.losses import (
    absolute_error_sum,
    binary_cross_entropy_sum,
    cross_entropy_sum,
    end_point_error_sum,
    labelled,
    soft_cross_entropy_sum,
)

PIXEL_RANGE = 255.0
LABEL = "label"
"""Name of the label that every sample may have; further ones have names of their own."""


class Task(Protocol):
    """A loss is the sum over all samples divided by the count over all samples."""

    def points(self, batch: Batch, *, every: bool = False) -> Tensor | None:
        """Return the queries that training asks of this batch, or `every` one, (O,) int64; None asks the whole grid."""
        ...

    def count(self, batch: Batch) -> Tensor:
        """Return what the sum over this batch will be divided by: known before the network has run."""
        ...

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the summed loss of the network's answer to this batch, in fp32."""
        ...


class AsksAll:
    """A task whose queries are few."""

    def points(self, batch: Batch, *, every: bool = False) -> Tensor | None:  # noqa: ARG002 - as Task has it
        """Return None: all queries are asked."""
        return None


@dataclass(frozen=True)
class Classification(AsksAll):
    """Cross-entropy of a label, weighted by the samples' weights, over the samples that have one."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    name: str = LABEL
    """Which label: LABEL, or a further one."""

    def classes(self, batch: Batch) -> Tensor:
        """Return the true class of each sample, (B,) int64, NO_LABEL where there is none."""
        return batch.labels if self.name == LABEL else batch.targets[self.name]

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the labelled samples."""
        return labelled(self.classes(batch), batch.weights).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the cross-entropies, where labels were mixed with the mixed ones."""
        if self.name != LABEL or LABEL not in batch.targets:
            return cross_entropy_sum(answer, self.classes(batch), batch.weights, smoothing=self.label_smoothing)
        smoothed = (1 - self.label_smoothing) * batch.targets["label"] + self.label_smoothing / answer.shape[-1]
        return soft_cross_entropy_sum(answer, smoothed, labelled(batch.labels, batch.weights))


class SeveralLabels(AsksAll):
    """A yes or no for each class, as AudioSet's labels: the mean over classes, weighted by the samples' weights."""

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples."""
        return batch.weights.sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the binary cross-entropies."""
        return binary_cross_entropy_sum(answer, batch.targets["label"], batch.weights)


class HiddenWords(AsksAll):
    """Cross-entropy of the bytes that were hidden from the text, weighted by the samples' weights."""

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the hidden bytes."""
        return labelled(*hidden_bytes(batch)).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the cross-entropies."""
        return cross_entropy_sum(answer, *hidden_bytes(batch))


class Motion(AsksAll):
    """Mean distance between the motion that is said and the true one, in pixels, over the samples that have frames."""

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples that have frames."""
        return self._weights(batch).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the end-point errors."""
        return end_point_error_sum(answer, batch.targets["flow"], self._weights(batch))

    def _weights(self, batch: Batch) -> Tensor:
        return batch.weights * (batch.lengths["flow"] > 0)


@dataclass(frozen=True)
class Reconstruction:
    """Mean absolute error of a modality that is drawn again (Perceiver IO, section 4.3), over the samples that have it.

    What pads a short recording or clip is to be drawn too: as silence, and as black.
    """

    modality: str
    """Whose values are wanted."""
    output: GridOutput
    """Its queries."""
    seed: int = 0
    """Of the draws of the queries that training asks."""

    def points(self, batch: Batch, *, every: bool = False) -> Tensor | None:
        """Return the cells that training asks of this batch: a function of the seed and the batch's index.

        Who was trained on some cells must be asked for every one in the same way: the released code, and so the
        network, places the cells of a subset otherwise than those of the whole grid (docs/parity.md).
        """
        if not self.output.train_queries:
            return None
        if every:
            return torch.arange(self.output.num_queries, device=batch.weights.device)
        # The same for every sample of the global batch, however it is cut.
        key = random_numbers.key("queries", self.modality, self.seed, batch.index)
        generator = np.random.Generator(np.random.Philox(key=key))
        cells = generator.choice(self.output.num_queries, self.output.train_queries, replace=False, shuffle=False)
        points = torch.from_numpy(cells)
        # From memory that is not page-locked the host would wait for the copy.
        return (points.pin_memory() if batch.weights.is_cuda else points).to(batch.weights.device, non_blocking=True)

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples that have the modality."""
        return self._weights(batch).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the mean absolute errors of the cells that were asked."""
        return absolute_error_sum(answer, self.target(batch, self.points(batch)), self._weights(batch))

    def target(self, batch: Batch, points: Tensor | None = None) -> Tensor:
        """Return the true values, (B, *shape, channels), or (B, O, channels) of the points: pixels in [0, 1]."""
        values, output = batch.arrays[self.modality], self.output
        if points is None:
            values = values.reshape(len(values), *output.shape, output.num_channels)
        else:
            values = values.reshape(len(values), output.num_queries, output.num_channels)[:, points]
        return values / PIXEL_RANGE if values.dtype == torch.uint8 else values

    def _weights(self, batch: Batch) -> Tensor:
        return batch.weights * (batch.lengths[self.modality] > 0)


def hidden_bytes(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the true ids of the hidden bytes, -1 where nothing was hidden, and the weight of each place."""
    ids = batch.targets["text"].long()
    return ids.masked_fill(ids == 0, -1), batch.weights[:, None].expand(ids.shape)
