"""Objective: what is minimised, as sums over samples with explicit counts, so that a batch can be cut anyhow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from data_shards.batch import Batch
from model.losses import binary_cross_entropy_sum, cross_entropy_sum, labelled, soft_cross_entropy_sum


class Objective(Protocol):
    """The loss is the sum over tasks of weight * (sum over all samples) / (count over all samples)."""

    @property
    def task_weights(self) -> Mapping[str, float]:
        """Weight of each task in the loss."""
        ...

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return what each task's sum over this batch will be divided by: known before the network has run."""
        ...

    def sums(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return each task's summed loss over this batch, in fp32."""
        ...


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of the label, weighted by the samples' weights, over the samples that have one."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    task_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"label": 1.0}))
    """One task."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the sum of the weights of the labelled samples."""
        return {"label": labelled(batch.labels, batch.weights).sum()}

    def sums(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted sum of the cross-entropies, where labels were mixed with the mixed ones."""
        logits = network(batch.arrays, batch.lengths)["label"]
        if "label" not in batch.targets:
            return {"label": cross_entropy_sum(logits, batch.labels, batch.weights, smoothing=self.label_smoothing)}
        smoothed = (1 - self.label_smoothing) * batch.targets["label"] + self.label_smoothing / logits.shape[-1]
        return {"label": soft_cross_entropy_sum(logits, smoothed, labelled(batch.labels, batch.weights))}


@dataclass(frozen=True)
class SeveralLabels:
    """A yes or no for each class, as AudioSet's labels: the mean over classes, weighted by the samples' weights."""

    task_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"label": 1.0}))
    """One task."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the sum of the weights of the samples."""
        return {"label": batch.weights.sum()}

    def sums(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted sum of the binary cross-entropies."""
        logits = network(batch.arrays, batch.lengths)["label"]
        return {"label": binary_cross_entropy_sum(logits, batch.targets["label"], batch.weights)}


@dataclass(frozen=True)
class HiddenWords:
    """Cross-entropy of the bytes that were hidden from the text, weighted by the samples' weights."""

    task_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"text": 1.0}))
    """One task."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the sum of the weights of the hidden bytes."""
        return {"text": labelled(*_hidden(batch)).sum()}

    def sums(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted sum of the cross-entropies."""
        labels, weights = _hidden(batch)
        return {"text": cross_entropy_sum(network(batch.arrays, batch.lengths)["text"], labels, weights)}


def _hidden(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the true ids of the hidden bytes, -1 where nothing was hidden, and the weight of each place."""
    ids = batch.targets["text"].long()
    return ids.masked_fill(ids == 0, -1), batch.weights[:, None].expand(ids.shape)
