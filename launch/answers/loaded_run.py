"""A trained run for inference: its network, configuration and class names, ready to be called."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from configs.plugins import trust
from configs.run import RunConfig
from data_shards.files.history import tell
from data_shards.loading.cuts import Cuts
from data_shards.loading.shard_loader import ShardLoader
from launch.answers.answering import Answering, batch_of, samples_of
from launch.lifecycle.run_folder import RunFolder
from launch.run.loaders import eval_split
from launch.run.trained import class_names
from launch.run.trained.network import Trained, config_of, trained
from model.network import AnyNetwork
from trainer.checkpoint.choice import NEWEST
from trainer.distributed.world import World
from trainer.tasks.answer import AnsweredFile, Cell


@dataclass(frozen=True)
class LoadedRun:
    """A run that was loaded."""

    path: Path
    """Its folder."""
    config: RunConfig
    """Its configuration."""
    network: AnyNetwork
    """Its network, in evaluation mode, with the weights of the checkpoint."""
    step: int
    """The step after which these weights were saved."""
    class_names: tuple[str, ...]
    """The class names of its label, in order; empty if it has none or its shards are gone."""
    notes: tuple[str, ...]
    """Sentences on what could not be had: damaged newer checkpoints, class names."""
    trained: Trained
    """The network with what is known of its weights."""

    def predict(
        self, paths: Iterable[Path | str], *, top: int = 1, batch: int = 0, split: str = ""
    ) -> list[dict[str, Cell | np.ndarray]]:
        """Return the answers for files, folders, tables or shard folders, a dict per sample, in their order.

        The keys are the columns of `perceiver predict`; of what is a file there, the array. An answer has `top`
        classes, and `batch` samples are answered at once, by default those of the run. Standard error says how many
        samples were longer than an input reads and were cut. ValueError for a file that cannot be read.
        """
        # Notes would go to a terminal that a library user may not have; what cannot be read raises instead.
        samples = samples_of(self.trained, tuple(map(str, paths)), split, lambda _: None)
        answering = Answering.of(self.trained, samples, top=top)
        # The rest of a batch would be empty slots, which cost as much as samples.
        rows = min(batch or batch_of(self.config), samples.num_samples)
        num_batches = -(-samples.num_samples // rows)
        # No list of skipped samples: a sample that cannot be read is an error here.
        with samples.loader(rows, range(num_batches), None) as loader:
            cuts, found = [], []
            for number in range(num_batches):
                clips = samples.clips(loader, number)
                # All clips are of the same samples: these are counted once.
                cuts.append(Cuts.of(clips[:1]))
                found += [row for _, row in answering.rows(number, clips)]
        for sentence in Cuts.total(cuts).sentences(samples.config):
            tell(sentence)
        return [
            {name: each.array if isinstance(each, AnsweredFile) else each for name, each in row.items()}
            for row in found
        ]

    def loader(self, split: str = "", *, global_batch: int = 1) -> ShardLoader:
        """Return the samples of a split as the network takes them; that which the run evaluates if none is named.

        ValueError where there is none.
        """
        if not split:
            split, sentence = eval_split(self.config)
            if not split:
                raise ValueError(f"{self.path}: {sentence}")
        data = self.config.data
        return ShardLoader(data, global_batch=global_batch, seed=self.config.seed, split=split)


def load_run(
    path: Path | str,
    *,
    checkpoint: str | int = NEWEST,
    weights: str = "",
    device: torch.device | str = "cpu",
    latents: int = 0,
    trust_code: bool = False,
) -> LoadedRun:
    """Return the run in a folder, with the weights of its newest or "best" checkpoint, or of that of a step.

    `weights` is "trained", or "ema" for their moving average; by default those are taken that the run evaluates.
    `latents` takes the first ones only, one of the numbers in model.nested_latents; 0 takes all. The folder may be one
    that `perceiver import` wrote. The plug-ins of a run are code of its author, and run only
    with `trust_code`. ValueError where there is no run, no such checkpoint, or none that is whole.
    """
    folder = RunFolder(Path(path).resolve())
    if trust_code:
        trust(folder.path)
    config = config_of(folder.path)
    try:
        found = trained(folder.path, config, str(checkpoint), World(0, 1, 0, torch.device(device)), weights, latents)
    except ValueError as error:
        # Of the command's options of these names.
        message = str(error)
        for option in ("checkpoint", "weights", "latents"):
            message = message.replace(f"--{option}", option)
        raise ValueError(message) from error
    names, notes = class_names.of(folder.path, config)
    return LoadedRun(folder.path, config, found.network, found.step, names.get("", ()), (*found.notes, *notes), found)
