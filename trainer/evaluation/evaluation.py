"""Evaluation of a network on samples that it was not trained on. Each sample counts once at any world size.

Where there are several inputs, each is also measured alone:

    shown    all    photo    sound       each set of inputs is one forward pass over a batch
    digit    a      a        a           a task of the whole sample is also judged by each input alone
    masked   a      -        -           others are not: what they reconstruct is the input itself
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.files.plugin_files import PluginError, fault_in, is_of_plugin, place_of
from data_shards.files.quoting import counted
from data_shards.loading.batch import Batch
from data_shards.loading.cuts import Cuts
from data_shards.loading.quarantine import one_line
from trainer.distributed.world import World
from trainer.evaluation.inference import averaged, shown_answers
from trainer.tasks.metric import Measurement, Metric, Result, Table
from trainer.tasks.objective import Objective, only
from trainer.tasks.task import Task

ALL = "all"
"""The name of an evaluation with all inputs."""


@dataclass(frozen=True)
class Value:
    """The value of a metric."""

    output: str
    """The name of the output."""
    metric: Metric
    """The metric of the value."""
    shown: str
    """ALL, or the only input that the network saw."""
    value: float
    """NaN if there was nothing to measure."""

    @property
    def key(self) -> str:
        """Its name in records: "digit/accuracy", or "digit/accuracy/photo" with that input alone."""
        return f"{self.output}/{self.metric.name}" + ("" if self.shown == ALL else f"/{self.shown}")

    @property
    def words(self) -> str:
        """Its value with its unit."""
        return "not measured" if math.isnan(self.value) else self.metric.shown(self.value)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    samples: int
    """The number of samples that were judged, with all inputs shown."""
    values: tuple[Value, ...]
    """The value of each metric, the most important one first."""
    num_judged: Mapping[str, int] = field(default_factory=dict)
    """Samples that had a target, by answer."""
    tables: Mapping[str, Mapping[str, Table]] = field(default_factory=dict)
    """Tables by output: the accuracy of each class, and the confusion matrix."""
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Pictures of some samples, uint8 (H, W, 3)."""
    num_nan: Mapping[str, int] = field(default_factory=dict)
    """Samples to which an output answered NaN, where it did; its metrics are then not measured."""
    cuts: Cuts = field(default_factory=Cuts)
    """Samples that are longer than an input reads."""
    decided_by: str = ""
    """Key of the value that decides which checkpoint is the best; empty for the first."""

    @property
    def best_by(self) -> float:
        """The score that selects the best checkpoint, from the metric that decides. Higher is better."""
        key = self.decided_by or self.values[0].key
        return next(value.metric.goodness(value.value) for value in self.values if value.key == key)

    def flat(self) -> dict[str, float]:
        """Return {"digit/accuracy": value, ...} of all that was measured."""
        return {value.key: value.value for value in self.values if not math.isnan(value.value)}

    def summary(self) -> str:
        """Return the first metric of each answer as one line."""
        # Reversed, so that of each output the first metric is the one that stays.
        firsts = {value.output: value for value in reversed(self.values) if value.shown == ALL}
        first = [value for value in self.values if value is firsts[value.output]]
        alone = [value for value in self.values if value.shown != ALL]
        said = [f"{value.output} {value.metric.name.replace('_', ' ')} {value.words}" for value in first]
        said += [f"{value.output} of {value.shown} alone {value.words}" for value in alone]
        return ", ".join([*said, *self.faults()])

    def faults(self) -> list[str]:
        """Return a sentence on each output that answered NaN."""
        return [
            f"{name}: the network answers NaN for {counted(count, 'sample')}" for name, count in self.num_nan.items()
        ]

    def as_json(self) -> dict[str, object]:
        """Return {"samples": n, "metrics": {"digit": {"accuracy": {"all": a, "photo": b}}}, "judged", "cut", ...}."""
        metrics: dict[str, dict[str, dict[str, float | None]]] = {}
        for value in self.values:
            of_metric = metrics.setdefault(value.output, {}).setdefault(value.metric.name, {})
            of_metric[value.shown] = None if math.isnan(value.value) else value.value
        tables = {name: dict(of) for name, of in self.tables.items() if of}
        found = {"samples": self.samples, "metrics": metrics, "judged": dict(self.num_judged), "tables": tables}
        return found | ({"nan": dict(self.num_nan)} if self.num_nan else {}) | {"cut": self.cuts.as_json()}


def keys(objective: Objective, inputs: tuple[str, ...]) -> list[str]:
    """Return the keys of all values that an evaluation finds of a network that reads these inputs, in their order."""
    tasks = objective.by_importance()
    # Through the code that names real results, so that the two lists of keys cannot drift apart.
    nothing = {
        (task.name, shown): Result({metric.name: math.nan for metric in task.metrics()}, 0)
        for task in tasks
        for shown in _shown(task, inputs)
    }
    return [value.key for value in _evaluation(tasks, nothing).values]


def check_measurements(objective: Objective) -> None:
    """Raise PluginError where a plug-in's task cannot say what it is judged by, begin to measure it, or end it."""
    alone = World(0, 1, 0, torch.device("cpu"))
    for task in (task for task in objective.tasks.values() if is_of_plugin(type(task))):
        try:
            task.metrics()
            measurement = task.measurement()
        except Exception as error:
            fault = fault_in(error) or f"{place_of(type(task))}: {type(task).__name__} fails ({one_line(error)})"
            raise PluginError(fault) from error
        try:
            result = measurement.result(alone)
        # Any Exception: of nothing a plug-in may have no result.
        except Exception:  # noqa: BLE001
            continue
        _check_result(task, measurement, result)


def evaluate(
    network: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    world: World,
    inputs: tuple[str, ...],
    *,
    num_clips: int = 1,
) -> Evaluation:
    """Return how well the network answers each task of the objective. Collective.

    `batches` is this rank's part, as many batches on every rank; slots without a key only fill a batch. An input
    alone is measured by setting the lengths of the others to zero, over the samples that have it. Of each `num_clips`
    batches in a row, which have the same samples, the answers are averaged.
    """
    was_training = network.training
    network.eval()
    tasks = objective.by_importance()
    measured = {(task.name, shown): task.measurement() for task in tasks for shown in _shown(task, inputs)}
    # Counted on the device and fetched once, at the end: a look at every batch would wait for it.
    num_nan = {key: torch.zeros((), dtype=torch.int64, device=world.device) for key in measured}
    # Without weights: nothing is added up to a loss here.
    by_input = Objective({task.name: task for task in tasks if task.by_input}, {})
    in_order = iter(batches)
    cuts_of_batches = []
    with torch.no_grad():
        while clips := [batch.to(world.device) for batch in islice(in_order, num_clips)]:
            here = clips[0]
            # Of the first clip alone: the others are of the same samples, which would be counted again.
            cuts_of_batches.append(Cuts.of([here]))
            real = here.weights.new_tensor([key != "" for key in here.keys], dtype=torch.bool)
            # Each set of inputs is answered once, however many tasks are judged by it.
            for shown in dict.fromkeys(shown for _, shown in measured):
                # A sample without this input would be answered from nothing at all.
                judged = real if shown == ALL else real & (here.lengths[shown] > 0)
                goal = objective if shown == ALL else by_input
                lengths = [clip.host_lengths if shown == ALL else only(clip.host_lengths, shown) for clip in clips]
                answers = averaged(
                    [shown_answers(network, goal, *each, objective) for each in zip(clips, lengths, strict=True)]
                )
                for task in tasks:
                    if (task.name, shown) in measured:
                        measured[task.name, shown].add(answers[task.name], here, judged)
                        num_nan[task.name, shown] += (judged & _are_nan(task, answers[task.name])).sum()
    network.train(was_training)
    counts, cuts = _of_all_ranks(torch.stack([*num_nan.values()]), Cuts.total(cuts_of_batches), world)
    results = {
        key: _result(objective.tasks[key[0]], of, world, num_nan=count)
        for (key, of), count in zip(measured.items(), counts, strict=True)
    }
    of_all = {name: count for (name, shown), count in zip(measured, counts, strict=True) if count and shown == ALL}
    return replace(_evaluation(tasks, results), num_nan=of_all, cuts=cuts)


def _of_all_ranks(num_nan: Tensor, cuts: Cuts, world: World) -> tuple[list[int], Cuts]:
    """Return the counts of all ranks, whose batches have the same inputs. Collective."""
    own = num_nan.new_tensor([*cuts.counts.values()]).flatten()
    # In one exchange, as each costs a round trip.
    summed = world.sum(torch.cat([num_nan, own])).tolist()
    of_cuts = iter(summed[len(num_nan) :])
    return summed[: len(num_nan)], Cuts({name: (next(of_cuts), next(of_cuts)) for name in cuts.counts})


def _are_nan(task: Task[Any], answer: Tensor) -> Tensor:
    """Return for each sample whether anything of its answer is NaN: as a class it would be the first one."""
    by_sample = answer.transpose(0, 1) if task.views else answer
    return by_sample.isnan().reshape(len(by_sample), -1).any(dim=1)


def _result(task: Task[Any], measurement: Measurement, world: World, *, num_nan: int) -> Result:
    """Return what a measurement found, nothing of answers that are NaN.

    PluginError where a plug-in's task has not the values of its metrics.
    """
    result = measurement.result(world)
    if is_of_plugin(type(task)):
        _check_result(task, measurement, result)
    # A metric over the remaining samples would be that of the ones on which the network still works.
    return replace(result, values=dict.fromkeys(result.values, math.nan), tables={}) if num_nan else result


def _check_result(task: Task[Any], measurement: Measurement, result: Result) -> None:
    names = [metric.name for metric in task.metrics()]
    own = measurement.result if is_of_plugin(type(measurement)) else task.metrics
    place = f"{place_of(own)}: {type(measurement).__name__}.result"
    found = dict(result.values) if isinstance(result, Result) else type(result).__name__
    if not isinstance(found, dict) or not all(isinstance(found.get(name), int | float) for name in names):
        raise PluginError(
            f"{place} returned {found}, expected a Result with a number for each of {', '.join(names)}; "
            "float() makes one"
        )
    if not isinstance(result.num_judged, int | float):
        raise PluginError(
            f"{place} returned num_judged = {result.num_judged!r:.60}, expected a number; int() makes one"
        )
    for name, table in result.tables.items():
        # They are written to evaluation.json as they are.
        if not isinstance(table, list):
            raise PluginError(
                f"{place} returned the table {name} as {type(table).__name__}, expected a list; tolist() makes one"
            )


def _shown(task: Task[Any], inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is shown for a task: all inputs, and each alone where there are several."""
    # One input alone is all inputs, and would be measured twice.
    return (ALL, *inputs) if task.by_input and len(inputs) > 1 else (ALL,)


def _evaluation(tasks: list[Task[Any]], found: dict[tuple[str, str], Result]) -> Evaluation:
    of_all = {task.name: found[task.name, ALL] for task in tasks}
    return Evaluation(
        max(result.num_judged for result in of_all.values()),
        tuple(value for task in tasks for value in _values(task, found)),
        {name: result.num_judged for name, result in of_all.items()},
        {name: result.tables for name, result in of_all.items()},
    )


def _values(task: Task[Any], found: dict[tuple[str, str], Result]) -> Iterator[Value]:
    """Yield all metrics with all inputs shown, and the first with each alone."""
    first, *others = task.metrics()
    for (name, shown), result in found.items():
        if name == task.name:
            yield Value(name, first, shown, result.values[first.name])
    for metric in others:
        yield Value(task.name, metric, ALL, found[task.name, ALL].values[metric.name])
