"""What each task is judged by: accuracy, mean average precision, bytes filled in, signal-to-noise, end-point error.

A score gathers over batches and is joined over the ranks at the end.
"""

from collections import defaultdict
from typing import Protocol

import torch
from torch import Tensor

from data_shards.format.annotations import NO_LABEL
from data_shards.loading.batch import Batch
from model.outputs.losses import end_point_error_sum
from model.outputs.quality import average_precision, peak_signal_to_noise
from trainer.distributed.world import World
from trainer.tasks.losses import (
    LABEL,
    Classification,
    HiddenWords,
    Motion,
    Reconstruction,
    SeveralLabels,
    Task,
    hidden_bytes,
)
from trainer.tasks.objective import Objective

ALL = "all"
"""All modalities are shown."""
END_POINT_ERROR = "end_point_error"
"""The one measure of which less is better."""
_SOUND_RANGE = 2.0
_PIXEL_RANGE = 1.0


class Score(Protocol):
    """One measure of one task."""

    measure: str
    """Its name."""
    by_modality: bool
    """Whether it is also taken with each modality alone."""

    def add(self, shown: str, answers: dict[str, Tensor], batch: Batch, judged: Tensor) -> None:
        """Take the answers to a batch of which some modality, or ALL, was shown; (B,) says which samples count."""
        ...

    def result(self, world: World) -> tuple[dict[str, float], int]:
        """Return the value for each thing that was shown, and the samples that were judged with ALL. Collective."""
        ...


def scores_of(objective: Objective) -> list[Score]:
    """Return a fresh score for each task: that of the label first, then those of further labels."""
    tasks = sorted(objective.tasks.items(), key=lambda task: task[0] != LABEL)
    return sorted((_score(name, task) for name, task in tasks), key=lambda score: not score.by_modality)


def _score(name: str, task: Task) -> Score:
    match task:
        case Classification():
            return Accuracy(task)
        case SeveralLabels():
            return MeanAveragePrecision()
        case HiddenWords():
            return FilledIn()
        case Reconstruction():
            return SignalToNoise(task)
        case Motion():
            return EndPointError()
    raise AssertionError(f"{name}: {type(task).__name__} has no score")


class _Means:
    """Sums and counts by name."""

    def __init__(self) -> None:
        self._pairs: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: Tensor) -> None:
        pair = torch.stack([total.double(), count.double()])
        self._pairs[name] = self._pairs[name] + pair if name in self._pairs else pair

    def joined(self, world: World) -> tuple[dict[str, float], dict[str, int]]:
        """Return the mean of each name over all ranks, 0 where there was nothing, and its count. Collective."""
        rows = world.sum(torch.stack(list(self._pairs.values()))).tolist()
        pairs = dict(zip(self._pairs, rows, strict=True))
        means = {name: total / count if count else 0.0 for name, (total, count) in pairs.items()}
        return means, {name: int(count) for name, (_, count) in pairs.items()}


class Accuracy:
    """Share of the labelled samples whose most likely class is the true one."""

    by_modality = True

    def __init__(self, task: Classification) -> None:
        self.measure = "accuracy" if task.name == LABEL else f"{task.name}_accuracy"
        self._task = task
        self._means = _Means()

    def add(self, shown: str, answers: dict[str, Tensor], batch: Batch, judged: Tensor) -> None:
        """See Score."""
        classes = self._task.classes(batch)
        judged = judged & (classes != NO_LABEL)
        self._means.add(shown, ((answers[self._task.name].argmax(dim=-1) == classes) & judged).sum(), judged.sum())

    def result(self, world: World) -> tuple[dict[str, float], int]:
        """See Score."""
        values, counts = self._means.joined(world)
        return values, counts[ALL]


class MeanAveragePrecision:
    """Mean over the classes that any sample has of their average precision, over the samples of all ranks."""

    measure, by_modality = "mean_average_precision", True

    def __init__(self) -> None:
        self._logits: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._targets: defaultdict[str, list[Tensor]] = defaultdict(list)

    def add(self, shown: str, answers: dict[str, Tensor], batch: Batch, judged: Tensor) -> None:
        """See Score."""
        self._logits[shown].append(answers["label"][judged].float().cpu())
        self._targets[shown].append(batch.targets["label"][judged].bool().cpu())

    def result(self, world: World) -> tuple[dict[str, float], int]:
        """See Score."""
        values, counts = {}, {}
        for shown, parts in self._logits.items():
            logits = torch.cat(world.gather(torch.cat(parts)))
            targets = torch.cat(world.gather(torch.cat(self._targets[shown])))
            values[shown] = float(average_precision(logits, targets).nanmean().nan_to_num())
            counts[shown] = len(logits)
        return values, counts[ALL]


class FilledIn:
    """Share of the hidden bytes that were filled in rightly."""

    measure, by_modality = "filled_in", False

    def __init__(self) -> None:
        self._means = _Means()
        self._samples = _Means()

    def add(self, shown: str, answers: dict[str, Tensor], batch: Batch, judged: Tensor) -> None:
        """See Score."""
        ids, _ = hidden_bytes(batch)
        asked = (ids >= 0) & judged[:, None]
        self._means.add("text", ((answers["text"].argmax(dim=-1) == ids) & asked).sum(), asked.sum())
        self._samples.add(shown, judged.sum(), judged.sum())

    def result(self, world: World) -> tuple[dict[str, float], int]:
        """See Score."""
        return self._means.joined(world)[0], self._samples.joined(world)[1][ALL]


class SignalToNoise:
    """Mean over the samples of the peak signal-to-noise ratio in decibels of a modality that is drawn again."""

    measure, by_modality = "psnr", False

    def __init__(self, task: Reconstruction) -> None:
        self._task = task
        self._means = _Means()

    def add(self, shown: str, answers: dict[str, Tensor], batch: Batch, judged: Tensor) -> None:  # noqa: ARG002
        """See Score."""
        name = self._task.modality
        judged = judged & (batch.lengths[name] > 0)
        peak = _SOUND_RANGE if name == "audio" else _PIXEL_RANGE
        target = self._task.target(batch)
        ratios = peak_signal_to_noise(answers[name].view_as(target), target, peak=peak)
        self._means.add(name, ratios[judged].sum(), judged.sum())

    def result(self, world: World) -> tuple[dict[str, float], int]:
        """See Score."""
        values, counts = self._means.joined(world)
        return values, counts[self._task.modality]


class EndPointError:
    """Mean over the samples of the mean distance between the motion that is said and the true one, in pixels."""

    measure, by_modality = END_POINT_ERROR, False

    def __init__(self) -> None:
        self._means = _Means()

    def add(self, shown: str, answers: dict[str, Tensor], batch: Batch, judged: Tensor) -> None:  # noqa: ARG002
        """See Score."""
        judged = judged & (batch.lengths["flow"] > 0)
        error = end_point_error_sum(answers["flow"], batch.targets["flow"], judged.float())
        self._means.add("flow", error, judged.sum())

    def result(self, world: World) -> tuple[dict[str, float], int]:
        """See Score."""
        values, counts = self._means.joined(world)
        return values, counts["flow"]
