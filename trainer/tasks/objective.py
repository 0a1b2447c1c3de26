"""Objective: the training loss as sums over samples with explicit counts, so a batch can be divided in any way.

What is divided by the count of the global batch adds up, over micro-batches and ranks, to the loss of the whole:

    counts   of every task, summed over all ranks   known before the forward pass
    sums     of every task over a micro-batch       each divided by its count
    others   answers to the whole global batch      for tasks that compare samples with each other
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.files.plugin_files import PluginError, fault_in, is_of_plugin, place_of
from data_shards.loading.batch import Batch
from data_shards.loading.quarantine import one_line
from model.outputs.kinds import kind_of
from model.outputs.output import Output
from trainer.distributed.world import World
from trainer.tasks.kinds.catalogue import BY_KIND
from trainer.tasks.network_draws import NetworkDraws
from trainer.tasks.task import Others, Task, Training


@dataclass(frozen=True)
class Objective:
    """The loss is the sum over tasks of weight * (sum over all samples) / (count over all samples)."""

    tasks: Mapping[str, Task[Any]]
    """Tasks by the name of their output."""
    weights: Mapping[str, float]
    """The weight of each task in the loss."""
    draws: NetworkDraws = field(default_factory=NetworkDraws)
    """What a training step draws for the network."""

    def counts(self, batch: Batch, *, by_input: bool = False) -> dict[str, Tensor]:
        """Return what each sum of `sums` over this batch will be divided by: known before the network has run."""
        counts = {name: _scalar(task.count, batch) for name, task in self.tasks.items()}
        parts = self._by_input(batch) if by_input else ()
        return counts | {f"{name}/{of}": self.tasks[name].count(part) for name, of, part in parts}

    def sums(
        self, network: nn.Module, batch: Batch, *, by_input: bool = False, others: Mapping[str, Others] | None = None
    ) -> dict[str, Tensor]:
        """Return each task's summed loss over this batch, in fp32.

        `by_input` adds "task/input", to look at alone: over the samples that have the input. `others` are those of the
        global batch, for tasks that compare samples; without them the samples of this batch are all there are.
        """
        answers = self.answers(network, batch, batch.host_lengths, **self.asks(batch))
        sums = {name: _sum(task, answers[name], batch, (others or {}).get(name)) for name, task in self.tasks.items()}
        parts = self._by_input(batch) if by_input else ()
        with torch.no_grad():
            # Without gradients: these parts are for log lines alone.
            return sums | {f"{name}/{of}": self.tasks[name].sum(answers[name], part) for name, of, part in parts}

    def answers(self, network: nn.Module, batch: Batch, lengths: dict[str, Tensor], **asks: Any) -> dict[str, Tensor]:  # noqa: ANN401  # the network's keywords
        """Return the network's answer to each task: of tasks with views (views, B, ...)."""
        alone = self._with_views()
        if not alone:
            found: dict[str, Tensor] = network(batch.arrays, lengths, **asks)
            return found
        # What a task asks or hides is of inputs that are read together; what the network draws is of every pass.
        drawn = {name: asks[name] for name in ("draws", "num_latents") if name in asks}
        together = self.tasks.keys() - alone.keys()
        found = network(batch.arrays, lengths, outputs=together, **asks) if together else {}
        views = {
            view: network(
                batch.arrays,
                only(lengths, view),
                outputs={name for name, task in alone.items() if view in task.views},
                **drawn,
            )
            for view in dict.fromkeys(view for task in alone.values() for view in task.views)
        }
        return found | {name: torch.stack([views[view][name] for view in task.views]) for name, task in alone.items()}

    def others(self, network: nn.Module, micro_batches: Sequence[Batch], world: World) -> list[dict[str, Others]]:
        """Return for each micro-batch what the tasks that compare samples need of the global batch. Collective."""
        alone = self._with_views()
        found: list[dict[str, Others]] = [{} for _ in micro_batches]
        if not alone:
            return found
        part = Objective(alone, {})
        with torch.no_grad():
            # They are to be the answers that the passes with gradients will give, and so draw the same.
            answers = [
                part.answers(network, batch, batch.host_lengths, **self.draws.asks(batch)) for batch in micro_batches
            ]
        rows = len(micro_batches[0].keys)
        for name, task in alone.items():
            # Ranks and micro-batches are consecutive: the samples have the order of the global batch at any world size.
            own = torch.cat([answer[name].float() for answer in answers], dim=1)
            all_answers = torch.cat(list(_of_all(own, world)), dim=1)
            weights = torch.cat(list(_of_all(torch.cat([task.weights(batch) for batch in micro_batches]), world)))
            first = world.rank * own.shape[1]
            for number, of_batch in enumerate(found):
                of_batch[name] = Others(all_answers, weights, first + number * rows)
        return found

    def _with_views(self) -> dict[str, Task[Any]]:
        return {name: task for name, task in self.tasks.items() if task.views}

    def loss(self, sums: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of sums over some samples, each divided by the count over all."""
        parts = [weight * (sums[task] / counts[task]) for task, weight in self.weights.items()]
        return torch.stack(parts).sum()

    def asks(self, batch: Batch, *, every: bool = False) -> dict[str, Any]:
        """Return the network's keywords for what training asks, hides and draws of this batch, or with `every` query.

        They are empty where all is asked and shown: only a network that answers with grids knows them.
        """
        asked = {name: task.points(batch, every=every) for name, task in self.tasks.items()}
        points = {name: cells for name, cells in asked.items() if cells is not None}
        hidden: dict[str, Tensor] = {}
        for task in self.tasks.values():
            # What one task hides is hidden from all: they share one forward pass.
            for name, tokens in task.hides(batch, every=every).items():
                hidden[name] = hidden[name] | tokens if name in hidden else tokens
        drawn = {} if every else self.draws.asks(batch)
        return ({"points": points} if points else {}) | ({"hidden": hidden} if hidden else {}) | drawn

    def by_importance(self) -> list[Task[Any]]:
        """Return the tasks in the order in which they are reported: answers about the sample as a whole first.

        Among those the sample's own label is first; all others come by name.
        """
        return sorted(self.tasks.values(), key=lambda task: (not task.by_input, bool(task.output.target), task.name))

    def _by_input(self, batch: Batch) -> Iterator[tuple[str, str, Batch]]:
        """Yield task, input, and the batch in which only the samples with that input have a weight."""
        tasks = [name for name, task in self.tasks.items() if task.by_input]
        # With one input it would be the loss itself once more.
        if len(batch.lengths) > 1:
            for modality, lengths in batch.lengths.items():
                part = replace(batch, weights=batch.weights * (lengths > 0))
                yield from ((name, modality, part) for name in tasks)


def _scalar(method: Callable[..., Tensor], *given: Any) -> Tensor:  # noqa: ANN401  # what a method takes
    """Return what a task computes; PluginError where one of a plug-in fails, or computes no number with a gradient."""
    task: Task[Any] = method.__self__  # type: ignore[attr-defined]  # a bound method
    name = f"{type(task).__name__}.{method.__name__}"
    try:
        value = method(*given)
    except Exception as error:
        if not is_of_plugin(type(task)) or isinstance(error, torch.OutOfMemoryError):
            raise
        # Its output may have answered what a task of ours cannot take.
        fault = fault_in(error) or f"{place_of(type(task))}: {name} fails ({one_line(error)})"
        raise PluginError(fault + _of_shape(given[0])) from error
    if is_of_plugin(type(task)):
        expected = "a tensor of one floating point number, without axes"
        if not (isinstance(value, Tensor) and value.shape == () and value.is_floating_point()):
            found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise PluginError(f"{place_of(method)}: {name} returned {found}, expected {expected}")
        if isinstance(given[0], Tensor) and given[0].requires_grad and not value.requires_grad:
            raise PluginError(
                f"{place_of(method)}: {name} returned a number without gradient; compute it from the answer"
            )
    return value


def _of_shape(answer: object) -> str:
    return f"; the answer is {answer.dtype} {list(answer.shape)}" if isinstance(answer, Tensor) else ""


def _sum(task: Task[Any], answer: Tensor, batch: Batch, others: Others | None) -> Tensor:
    """Return the summed loss of a task, among the others of the global batch where it compares samples."""
    if others is None:
        return _scalar(task.sum, answer, batch)
    return _scalar(task.sum_among, answer, batch, others)


def only(lengths: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the lengths of samples that have this input and no other."""
    return {other: length if other == name else torch.zeros_like(length) for other, length in lengths.items()}


def _of_all(own: Tensor, world: World) -> Tensor:
    """Return a tensor of every rank, (ranks, ...). Collective."""
    slots = own.new_zeros(world.world_size, *own.shape)
    slots[world.rank] = own
    # Sums with zeros change no bit.
    return world.sum(slots)


def contagious(loss: Tensor) -> Tensor:
    """Return the loss, or NaN gradients with it: a finite gradient of an infinite loss must not be applied."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


def objective(
    answers: Mapping[str, Output], *, label_smoothing: float = 0.0, seed: int = 0, draws: NetworkDraws | None = None
) -> Objective:
    """Return the objective of a network's answers; RunConfig has checked that the data has their targets.

    `draws` are for training alone.
    """
    training = Training(label_smoothing, seed)
    tasks = {name: BY_KIND[kind_of(type(output))].of(name, output, training) for name, output in answers.items()}
    weights = {name: output.loss_weight for name, output in answers.items()}
    return Objective(tasks, weights, draws or NetworkDraws())
