"""From samples to rows: the network's answers as each task tells them."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from configs.run import RunConfig
from data_shards.loading.batch import Batch
from data_shards.loading.dataset import are_numbers
from data_shards.sources.prediction import new_samples
from data_shards.sources.prediction.new_files import Tell
from data_shards.sources.prediction.new_samples import NewSamples
from launch.answers.columns import name_of
from launch.run.trained import class_names
from launch.run.trained.network import Trained
from model.perceiver import Perceiver
from trainer.evaluation.inference import answered
from trainer.tasks.answer import Cell, Row, Telling
from trainer.tasks.objective import Objective, objective

# A run's global batch may be thousands of samples, more than one process can hold at once.
_MOST_ROWS = 64


def samples_of(trained: Trained, paths: Sequence[str], split: str, tell: Tell) -> NewSamples:
    """Return the samples that are named, as the run reads them."""
    return new_samples.find(paths, new_samples.of_prediction(trained.config.data, trained.inputs), split, tell)


def batch_of(config: RunConfig) -> int:
    """Return how many samples are answered at once where nobody says it."""
    train = config.train
    return train.micro_batch or min(train.global_batch, _MOST_ROWS)


@dataclass(frozen=True)
class Answering:
    """Answers batches of some samples."""

    trained: Trained
    samples: NewSamples
    telling: Telling
    notes: tuple[str, ...]
    """Sentences on what could not be had, such as class names."""

    @classmethod
    def of(cls, trained: Trained, samples: NewSamples, *, top: int) -> "Answering":
        """Return what answers these samples, with so many classes of each."""
        names, notes = class_names.of(trained.folder.path, trained.config)
        # Files bring no label; of both kinds a column would be empty by halves.
        telling = Telling(samples.config.inputs, names, top, with_truth=not samples.files)
        return cls(trained, samples, telling, (*trained.notes, *notes))

    def rows(self, number: int, clips: Sequence[Batch]) -> Iterator[tuple[int, Row]]:
        """Yield the number and the row of every sample of a batch, by its number, but of those that cannot be read."""
        on_device = [clip.to(self.trained.device) for clip in clips]
        found = answered(self.trained.network, self._objective, on_device)
        here = on_device[0]
        samples = range(number * len(here.keys), (number + 1) * len(here.keys))
        of_samples = map(self.samples.dataset_of, samples)
        names = [self._true_names[place] if place >= 0 else {} for place in of_samples]
        telling = replace(self.telling, true_names=names)
        parts = {task.name: task.rows(found[task.name], here, telling) for task in self._objective.by_importance()}
        for place, (sample, key) in enumerate(zip(samples, here.keys, strict=True)):
            if key:
                shard = self.samples.shard_of(sample)
                row: Row = {"key": key, "shard": shard} if shard else {"key": key}
                for output, rows in parts.items():
                    _add(row, rows[place], output, parts)
                yield sample, row

    @cached_property
    def _true_names(self) -> list[dict[str, Sequence[str]]]:
        """The class names of each shard folder; those of the run where it has numbers for names."""
        folders = [{"": dataset.label_names, **dataset.named_labels} for dataset in self.samples.datasets]
        known = self.telling.class_names
        return [
            {target: known.get(target, names) if are_numbers(names) else names for target, names in there.items()}
            for there in folders
        ]

    def latents(self, clips: Sequence[Batch], *, whole: bool) -> Tensor:
        """Return the latents of a batch, (B, N, D), or their mean, (B, D), in fp32; of several clips the mean."""
        network = self.trained.network
        # The network of a plug-in has no array of latents, and its run was refused.
        assert isinstance(network, Perceiver)
        with torch.no_grad():
            on_device = [clip.to(self.trained.device) for clip in clips]
            # On the CPU at once: what a rank has answered of its part must not fill the device.
            of_clips = [network.latents(here.arrays, here.host_lengths).float().cpu() for here in on_device]
        found = torch.stack(of_clips).mean(dim=0) if of_clips[1:] else of_clips[0]
        return found if whole else found.mean(dim=1)

    @property
    def _objective(self) -> Objective:
        return objective(self.trained.config.model.answers(), seed=self.trained.config.seed)


def _add(row: Row, columns: Row, output: str, outputs: Collection[str]) -> None:
    """Add what an output's task tells, under names that nothing else has."""
    for column, cell in columns.items():
        name = name_of(column, output, outputs)
        # Two tasks of plug-ins may tell one column.
        row[f"{output}.{column}" if name in row else name] = cell


def plain(cell: Cell) -> Cell:
    """Return a cell as JSON has it, which knows no NaN."""
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, list):
        return [plain(each) for each in cell]
    return cell
