"""Objective: what is minimised, as sums over samples with explicit counts, so that a batch can be cut anyhow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from data_shards.batch import Batch
from model.losses import cross_entropy_sum, labelled


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
        """Return the weighted sum of the cross-entropies."""
        logits = network(batch.arrays, batch.lengths)["label"]
        return {"label": cross_entropy_sum(logits, batch.labels, batch.weights, smoothing=self.label_smoothing)}
