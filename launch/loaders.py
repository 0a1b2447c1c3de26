"""The loaders of a run, from its configuration and this rank."""

from dataclasses import replace
from pathlib import Path

from configs.run import RunConfig
from data_shards import manifest
from data_shards.loader import Loader
from data_shards.order import EvalOrder, TrainOrder
from trainer.world import World

TRAIN, TEST = "train", "test"


def absolute(config: RunConfig) -> RunConfig:
    """Return the configuration with the shards' path made absolute: a restart may run in another working directory."""
    shards = config.data.shards
    if not shards or "://" in shards:
        return config
    return replace(config, data=replace(config.data, shards=str(Path(shards).resolve())))


def label_names(config: RunConfig) -> tuple[str, ...]:
    """Return the class names of the shards; ValueError unless the network answers as many classes."""
    if not config.data.shards:
        raise ValueError("data.shards is not set; give the folder that `perceiver data build` wrote, data.shards=PATH")
    names = manifest.read(Path(config.data.shards)).label_names
    output = config.model.outputs.label
    if output is not None and output.num_classes != len(names):
        raise ValueError(
            f"{config.data.shards}: has {len(names)} classes, but model.outputs.label.num_classes = "
            f"{output.num_classes}; set it to {len(names)}, or take the shards that the network was meant for"
        )
    return names


def train_order(config: RunConfig) -> TrainOrder:
    """Return the order in which the run trains; every rank computes the same."""
    split = manifest.read(Path(config.data.shards)).split(TRAIN)
    return TrainOrder(split, config.seed, config.train.global_batch, config.data.lanes, config.data.window)


def train_loader(config: RunConfig, order: TrainOrder, world: World) -> Loader:
    """Return this rank's loader of the training split."""
    return _loader(config, TRAIN, order, world)


def test_loader(config: RunConfig, world: World) -> tuple[Loader, int] | None:
    """Return this rank's loader of the test split and the number of its batches; None where there is no such split."""
    splits = manifest.read(Path(config.data.shards)).splits
    if TEST not in splits:
        return None
    order = EvalOrder(splits[TEST], config.train.global_batch)
    return _loader(config, TEST, order, world), order.steps_per_epoch


def identity(config: RunConfig) -> dict[str, str | int]:
    """Return what decides the sample order: a checkpoint of another identity is not gone on with."""
    return {
        "manifest": manifest.read(Path(config.data.shards)).split(TRAIN).fingerprint,
        "seed": config.seed,
        "global_batch": config.train.global_batch,
        "lanes": config.data.lanes,
        "window": config.data.window,
    }


def _loader(config: RunConfig, split: str, order: TrainOrder | EvalOrder, world: World) -> Loader:
    return Loader(
        Path(config.data.shards),
        split,
        order,
        config.data,
        seed=config.seed,
        rank=world.rank,
        world_size=world.world_size,
        train=split == TRAIN,
        pinned=world.device.type == "cuda",
    )
