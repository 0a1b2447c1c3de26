"""A trained run for inference: its network, configuration and class names, ready to be called."""

from dataclasses import dataclass
from pathlib import Path

import torch

from configs.plugins import trust
from configs.run import RunConfig, load
from data_shards.loading.shard_loader import ShardLoader
from launch.lifecycle.run_folder import RunFolder, existing
from launch.run import preprocessing
from launch.run.loaders import eval_split
from model.custom import new_network
from model.network import AnyNetwork
from trainer.checkpoint.choice import NEWEST, read_weights
from trainer.distributed.world import World


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
    path: Path | str, *, checkpoint: str | int = NEWEST, device: torch.device | str = "cpu", trust_code: bool = False
) -> LoadedRun:
    """Return the run in a folder, with the weights of its newest or "best" checkpoint, or of that of a step.

    The plug-ins of a run are code of its author, and run only with `trust_code`. ValueError where there is no run, no
    such checkpoint, or none that is whole.
    """
    folder = existing(RunFolder(Path(path).resolve()))
    if trust_code:
        trust(folder.path)
    config = load(folder.config_path)
    try:
        found = read_weights(folder.checkpoints_folder, str(checkpoint), World(0, 1, 0, torch.device("cpu")))
    except ValueError as error:
        # Of the command's option of this name.
        raise ValueError(str(error).replace("--checkpoint", "checkpoint")) from error
    network = new_network(config.model, seed=config.seed)
    network.load_state_dict(found.tensors)
    around = preprocessing.of_run(config)
    notes = (*(f"skipped a damaged checkpoint: {sentence}" for sentence in found.passed_over), *around.notes)
    return LoadedRun(folder.path, config, network.to(device).eval(), found.step, around.classes, notes)
