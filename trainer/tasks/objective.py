"""Objective: what is minimised, as sums over samples with explicit counts, so that a batch can be cut anyhow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.config.outputs import AnyOutput, FlowOutput, GridOutput, LabelOutput, OutputsConfig, TextOutput
from trainer.tasks.losses import Classification, HiddenWords, Motion, Reconstruction, SeveralLabels, Task


@dataclass(frozen=True)
class Objective:
    """The loss is the sum over tasks of weight * (sum over all samples) / (count over all samples)."""

    tasks: Mapping[str, Task]
    """By the output that answers it."""
    weights: Mapping[str, float]
    """Of each task in the loss."""

    def counts(self, batch: Batch, *, by_modality: bool = False) -> dict[str, Tensor]:
        """Return what each sum of `sums` over this batch will be divided by: known before the network has run."""
        counts = {name: task.count(batch) for name, task in self.tasks.items()}
        parts = self._by_modality(batch) if by_modality else ()
        return counts | {f"{name}/{modality}": self.tasks[name].count(part) for name, modality, part in parts}

    def sums(self, network: nn.Module, batch: Batch, *, by_modality: bool = False) -> dict[str, Tensor]:
        """Return each task's summed loss over this batch, in fp32.

        `by_modality` adds "task/modality", to look at alone: over the samples that have the modality.
        """
        answers = network(batch.arrays, batch.host_lengths, **self.asks(batch))
        sums = {name: task.sum(answers[name], batch) for name, task in self.tasks.items()}
        parts = self._by_modality(batch) if by_modality else ()
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

    def _by_modality(self, batch: Batch) -> Iterator[tuple[str, str, Batch]]:
        """Yield task, modality, and the batch in which only the samples with that modality have a weight."""
        tasks = [name for name, task in self.tasks.items() if not isinstance(task, Reconstruction)]
        if len(batch.lengths) > 1:
            for modality, lengths in batch.lengths.items():
                part = replace(batch, weights=batch.weights * (lengths > 0))
                yield from ((name, modality, part) for name in tasks)


def contagious(loss: Tensor) -> Tensor:
    """Return the loss, or NaN gradients with it: a finite gradient of an infinite loss must not be applied."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


def objective(outputs: OutputsConfig, *, label_smoothing: float = 0.0, seed: int = 0) -> Objective:
    """Return the objective of a network's outputs; RunConfig has checked that the data has their targets."""
    chosen = outputs.chosen()
    tasks = {name: _task(name, output, label_smoothing, seed) for name, output in chosen.items()}
    return Objective(tasks, {name: output.loss_weight for name, output in chosen.items()})


def _task(name: str, output: AnyOutput, label_smoothing: float, seed: int) -> Task:
    match output:
        case LabelOutput():
            return SeveralLabels() if output.multi_label else Classification(label_smoothing, name)
        case TextOutput():
            return HiddenWords()
        case GridOutput():
            return Reconstruction(name, output, seed)
        case FlowOutput():
            return Motion()
