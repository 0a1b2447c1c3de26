"""Objective: the training loss as sums over samples with explicit counts, so a batch can be divided in any way."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.files.plugin_files import PluginError, is_of_plugin, place_of
from data_shards.loading.batch import Batch
from model.outputs.kinds import kind_of
from model.outputs.output import Output
from trainer.tasks.kinds import BY_KIND
from trainer.tasks.task import Task, Training


@dataclass(frozen=True)
class Objective:
    """The loss is the sum over tasks of weight * (sum over all samples) / (count over all samples)."""

    tasks: Mapping[str, Task[Any]]
    """Tasks by the name of their output."""
    weights: Mapping[str, float]
    """The weight of each task in the loss."""

    def counts(self, batch: Batch, *, by_input: bool = False) -> dict[str, Tensor]:
        """Return what each sum of `sums` over this batch will be divided by: known before the network has run."""
        counts = {name: _scalar(task.count, task.count(batch)) for name, task in self.tasks.items()}
        parts = self._by_input(batch) if by_input else ()
        return counts | {f"{name}/{of}": self.tasks[name].count(part) for name, of, part in parts}

    def sums(self, network: nn.Module, batch: Batch, *, by_input: bool = False) -> dict[str, Tensor]:
        """Return each task's summed loss over this batch, in fp32.

        `by_input` adds "task/input", to look at alone: over the samples that have the input.
        """
        answers = network(batch.arrays, batch.host_lengths, **self.asks(batch))
        sums = {name: _scalar(task.sum, task.sum(answers[name], batch)) for name, task in self.tasks.items()}
        parts = self._by_input(batch) if by_input else ()
        with torch.no_grad():
            return sums | {f"{name}/{of}": self.tasks[name].sum(answers[name], part) for name, of, part in parts}

    def loss(self, sums: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of sums over some samples, each divided by the count over all."""
        parts = [weight * (sums[task] / counts[task]) for task, weight in self.weights.items()]
        return torch.stack(parts).sum()

    def asks(self, batch: Batch, *, every: bool = False) -> dict[str, dict[str, Tensor]]:
        """Return the network's keyword that asks for what training wants of this batch, or for `every` query.

        It is empty where all are asked: only a network that answers with grids knows it.
        """
        asked = {name: task.points(batch, every=every) for name, task in self.tasks.items()}
        points = {name: cells for name, cells in asked.items() if cells is not None}
        return {"points": points} if points else {}

    def by_importance(self) -> list[Task[Any]]:
        """Return the tasks in the order in which they are reported: answers about the sample as a whole first.

        Among those the sample's own label is first; all others come by name.
        """
        return sorted(self.tasks.values(), key=lambda task: (not task.by_input, bool(task.output.target), task.name))

    def _by_input(self, batch: Batch) -> Iterator[tuple[str, str, Batch]]:
        """Yield task, input, and the batch in which only the samples with that input have a weight."""
        tasks = [name for name, task in self.tasks.items() if task.by_input]
        if len(batch.lengths) > 1:
            for modality, lengths in batch.lengths.items():
                part = replace(batch, weights=batch.weights * (lengths > 0))
                yield from ((name, modality, part) for name in tasks)


def _scalar(method: Callable[..., Tensor], value: Tensor) -> Tensor:
    """Return what a task computed; PluginError where one of a plug-in computed something else than a number."""
    task = type(method.__self__)  # type: ignore[attr-defined]  # a bound method
    if is_of_plugin(task) and not (isinstance(value, Tensor) and value.shape == ()):
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        name = f"{task.__name__}.{method.__name__}"
        raise PluginError(f"{place_of(method)}: {name} gave {shape}, expected a tensor of one number, without axes")
    return value


def contagious(loss: Tensor) -> Tensor:
    """Return the loss, or NaN gradients with it: a finite gradient of an infinite loss must not be applied."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


def objective(answers: Mapping[str, Output], *, label_smoothing: float = 0.0, seed: int = 0) -> Objective:
    """Return the objective of a network's answers; RunConfig has checked that the data has their targets."""
    training = Training(label_smoothing, seed)
    tasks = {name: BY_KIND[kind_of(type(output))].of(name, output, training) for name, output in answers.items()}
    return Objective(tasks, {name: output.loss_weight for name, output in answers.items()})
