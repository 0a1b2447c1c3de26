"""`perceiver eval`: the newest checkpoint on samples that were never trained on, and the pictures of the run."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from configs.run import RunConfig, load
from data_shards.batch import Batch
from data_shards.loader import Loader
from launch import pictures
from launch.folder import RunFolder, existing
from launch.loaders import absolute, label_names, test_loader
from launch.together import together
from model.perceiver import Perceiver
from trainer import checkpoint_folder
from trainer.evaluate import evaluate, predictions
from trainer.world import World

NUM_PICTURED = 32


def main(path: Path, *, as_json: bool = False) -> int:
    """Evaluate the newest checkpoint of a run; return the exit status. Collective."""
    folder = RunFolder(path.resolve())
    config = absolute(load(existing(folder).config_path))
    world = World.from_environment(config.train.collective_timeout_seconds)
    found = together(world, lambda: test_loader(config, folder.quarantine_path, world))
    if found is None:
        raise ValueError(f"{config.data.shards}: has no test split to evaluate on; build it with one")
    loader, num_batches = found
    step, network = together(world, lambda: newest_network(config, folder, world))
    with loader:
        batches = (loader(index) for index in range(num_batches))
        result = {"step": step, **evaluate(network, batches, world, tuple(config.data.modalities()))}
        if world.is_first:
            _write(folder.evaluation_path, result)
            _draw(config, folder, network, loader, world)
            _tell(folder, result, as_json=as_json)
    world.close()
    return 0


def newest_network(config: RunConfig, folder: RunFolder, world: World) -> tuple[int, Perceiver]:
    """Return the step and the network of the newest checkpoint; ValueError where there is none."""
    checkpoints = checkpoint_folder.complete(folder.checkpoints_folder)
    if not checkpoints:
        raise ValueError(f"{folder.checkpoints_folder}: holds no complete checkpoint yet; train further, then evaluate")
    network = Perceiver(config.model, seed=config.seed)
    network.load_state_dict(checkpoint_folder.read_weights(checkpoints[-1]))
    return checkpoint_folder.read_manifest(checkpoints[-1]).state.step, network.to(world.device)


def _write(path: Path, result: Mapping[str, object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(dict(result)) + "\n")
    beside.replace(path)


def _draw(config: RunConfig, folder: RunFolder, network: Perceiver, loader: Loader, world: World) -> None:
    if folder.metrics_path.exists():
        pictures.loss_curve(folder.metrics_path, folder.pictures_folder / "loss.png")
    if "image" not in config.data.modalities():
        return
    names = label_names(config)
    rows = list(_pictured(network, loader(0), world))[:NUM_PICTURED]
    images, truths, guesses = zip(*rows, strict=True)
    pictures.predictions(
        np.stack(images),
        [names[truth] for truth in truths],
        [names[guess] for guess in guesses],
        folder.pictures_folder / "predictions.png",
    )


def _pictured(network: Perceiver, batch: Batch, world: World) -> Iterator[tuple[np.ndarray, int, int]]:
    guesses = predictions(network, batch.to(world.device)).cpu()
    shown = (batch.lengths["image"] > 0) & (batch.labels >= 0) & torch.tensor([key != "" for key in batch.keys])
    for index in torch.nonzero(shown).flatten().tolist():
        yield batch.arrays["image"][index].numpy(), int(batch.labels[index]), int(guesses[index])


def _tell(folder: RunFolder, result: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(dict(result)) + "\n")
        return
    accuracy = result["accuracy"]
    assert isinstance(accuracy, dict)
    sys.stdout.write(f"step {result['step']}, {result['samples']} test samples\n")
    for name, value in accuracy.items():
        sys.stdout.write(f"  {'all modalities' if name == 'all' else f'{name} alone':<16} {value:7.2%}\n")
    sys.stdout.write(f"pictures: {folder.pictures_folder}\ncurves: tensorboard --logdir {folder.tensorboard_folder}\n")
