"""Metrics: a metric states its own name, unit and direction; a measurement accumulates its value.

A measurement takes batch after batch on every rank and is joined at the end: sums and counts are added over the ranks
in float64, so that the value is that of all samples together at any world size, and never a mean of means.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from trainer.distributed.world import World

Table = list[float | None] | list[list[int]]
"""A number a class (None where there is none), or a number a pair of classes."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good answers are."""

    name: str
    """Its name, such as accuracy."""
    unit: str = ""
    """What its values are measured in: "%" for parts of 1, "dB", "px"; empty for a number without a unit."""
    higher_is_better: bool = True
    """Whether a larger value is the better one."""
    highest: float | None = None
    """The end of its scale, which begins at 0; None where there is none."""

    def shown(self, value: float) -> str:
        """Return a value as it is printed."""
        if self.unit == "%":
            return f"{value:.2%}"
        return f"{value:.2f} {self.unit}" if self.unit else f"{value:.4g}"

    def goodness(self, value: float) -> float:
        """Return a number that is the larger the better the value is."""
        # One direction for all: what keeps the best checkpoint need not know the metrics.
        return value if self.higher_is_better else -value


@dataclass(frozen=True)
class Result:
    """What a measurement found over the samples of all ranks."""

    values: Mapping[str, float]
    """Values by the name of the metric; NaN if there was nothing to measure."""
    num_judged: int
    """Samples that had a target."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """More than a number, such as what each class comes to, by name."""


class Measurement(ABC):
    """Gathers what the metrics of one task need."""

    @abstractmethod
    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """Take the answer to a batch; (B,) bool says which samples count."""

    @abstractmethod
    def result(self, world: World) -> Result:
        """Return the values over what all ranks took. Collective."""


class Sums:
    """Sums of a fixed number of terms, in float64 wherever the terms are."""

    def __init__(self, num_terms: int) -> None:
        # fp32 counts to 16.8 million: beyond that one more sample changes nothing.
        self._terms = torch.zeros(num_terms, dtype=torch.float64)

    def add(self, *terms: Tensor) -> None:
        """Add one number to each term."""
        # It follows the answers to their device: to fetch each number would make the host wait for every batch.
        self._terms = self._terms.to(terms[0].device) + torch.stack([term.double() for term in terms])

    def joined(self, world: World) -> list[float]:
        """Return the terms over all ranks. Collective."""
        joined: list[float] = world.sum(self._terms.to(world.device)).tolist()
        return joined


def ratio(total: float, count: float) -> float:
    """Return a mean; NaN of nothing."""
    return total / count if count else math.nan


def listed(values: Sequence[float]) -> list[float | None]:
    """Return values as JSON has them, which knows no NaN."""
    return [value if math.isfinite(value) else None for value in values]
