"""A task: the loss and the metrics of one kind of output. One class per kind, each in its own file.

    loss of a task = (sum over all samples) / (count over all samples)

Both are taken of each micro-batch of each rank and added, so that the loss does not depend on how a batch is cut. The
count is known before the network has run.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

from torch import Tensor

from data_shards.loading.batch import Batch
from model.outputs.output import Output
from trainer.tasks.answer import AnsweredFile, Row, Telling, numbers
from trainer.tasks.metric import Measurement, Metric

OutputT = TypeVar("OutputT", bound=Output)


@dataclass(frozen=True)
class Training:
    """What of a run's training tasks depend on."""

    label_smoothing: float = 0.0
    """Part of a label's target that is spread over all classes."""
    seed: int = 0
    """The seed of the random queries in training."""


@dataclass(frozen=True)
class Others:
    """The answers to all samples of a global batch, of which a micro-batch has some."""

    answers: Tensor
    """(views, samples, ...) in fp32, without gradients; the micro-batch's own are among them."""
    weights: Tensor
    """float32 (samples,)."""
    first: int
    """The row of the micro-batch's first sample."""


@dataclass(frozen=True)
class Task(ABC, Generic[OutputT]):
    """The loss and the metrics of an answer."""

    kind: ClassVar[str]
    """The kind of answer that it is for."""
    by_input: ClassVar[bool] = True
    """Whether loss and metrics are also taken over the samples that have an input, and metrics with it alone."""
    asks_many: ClassVar[bool] = False
    """Whether an evaluation decodes its queries in several parts, since they may be many."""

    is_compared: ClassVar[bool] = False
    """Whether the true answer and the given one can be seen side by side."""

    name: str
    """The name of the answer."""
    output: OutputT
    """Its configuration, with target and shape filled in."""
    training: Training = Training()
    """What else decides its loss."""

    @property
    def shows_unit_range(self) -> bool:
        """Whether pixels that are compared lie in [0, 1]."""
        return True

    @classmethod
    def of(cls, name: str, output: OutputT, training: Training) -> Self:
        """Return the task of an answer."""
        return cls(name, output, training)

    def points(self, batch: Batch, *, every: bool = False) -> Tensor | None:  # noqa: ARG002  # by tasks with many queries
        """Return the queries that training asks of this batch, or `every` one, (O,) int64; None asks all in order."""
        return None

    # By seed, batch and key of the sample, never by a generator that runs on: ranks, micro-batches and restarts must
    # not change what is hidden.
    def hides(self, batch: Batch, *, every: bool = False) -> dict[str, Tensor]:  # noqa: ARG002  # by masked modelling
        """Return which tokens of which inputs the network does not see, (B, M) bool; in training, or where `every`
        query is asked."""
        return {}

    @property
    def views(self) -> tuple[str, ...]:
        """Inputs that are read alone: its answer is then (views, B, ...). Empty where all are read together.

        The samples of a task with views are compared with each other, see `sum_among`.
        """
        return self.output.views()

    def weights(self, batch: Batch) -> Tensor:
        """Return the weight of each sample in a task with views."""
        return batch.weights

    def sum_among(self, answer: Tensor, batch: Batch, others: Others) -> Tensor:  # noqa: ARG002  # by tasks with views
        """Return the summed loss of this batch among the others of its global batch."""
        return self.sum(answer, batch)

    @abstractmethod
    # Before the forward pass: the counts of all ranks are summed once, and each micro-batch can then be divided by the
    # count of the global batch at once.
    def count(self, batch: Batch) -> Tensor:
        """Return what the sum over this batch will be divided by: known before the network has run."""

    @abstractmethod
    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the summed loss of the network's answer to this batch, in fp32."""

    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Return what it is judged by; the first one decides which checkpoint is the best."""

    @abstractmethod
    def measurement(self) -> Measurement:
        """Return an empty measurement of the metrics."""

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:  # noqa: ARG002  # by several tasks
        """Return what a user is given of the answer to each sample: the numbers, or a file where they are many axes."""
        found = [values.numpy() for values in answer.float().cpu()]
        return [
            {self.name: numbers(values) if values.ndim <= 1 else AnsweredFile.of_numbers(values)} for values in found
        ]

    def seen(self, batch: Batch) -> Tensor | None:  # noqa: ARG002  # by masked modelling
        """Return what the network saw in an evaluation of the true answer, NaN where it was hidden; None for all."""
        return None

    def compared(self, answer: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the true answer and the given one, (B, *shape, channels); asked of tasks that are `is_compared`."""
        # Not abstract: a task that is not `is_compared` would have to write it for nothing.
        raise NotImplementedError
