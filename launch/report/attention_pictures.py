"""`perceiver attention`: pictures of a checkpoint's attention weights."""

from pathlib import Path

from configs.run import load
from data_shards.files.history import tell
from data_shards.files.quoting import shown
from data_shards.loading import streams
from launch.lifecycle.run_folder import RunFolder, existing
from launch.run.loaders import absolute, open_eval_split
from trainer.checkpoint.choice import NEWEST, read_weights
from trainer.distributed.world import World
from trainer.evaluation.attention_maps import attention_maps, draw, readable


def main(path: Path, sample: int, which: str = NEWEST, weights: str = "") -> list[Path]:
    """Draw a picture a modality of one of the first evaluated samples and return where they are."""
    folder = existing(RunFolder(path.resolve()))
    config = absolute(load(folder.config_path))
    # One process: pictures of one sample are not worth more.
    world = World.alone()
    found = read_weights(folder.checkpoints_folder, which, world, weights or config.ema.evaluated)
    for sentence in found.passed_over:
        tell(f"skipped a damaged checkpoint: {sentence}")
    split = open_eval_split(config, streams.eval_split(config.data), folder.quarantine_path, world)
    with split.loader as loader:
        batch = loader(0)
    if sample >= batch.num_samples:
        raise ValueError(
            f"--sample {sample}: the first batch of split {shown(split.name)} has {batch.num_samples} samples, from 0"
        )
    if config.model.network is not None:
        raise ValueError(
            f"{folder.path}: model.network is {config.model.network.kind}, whose attention is not known; maps are "
            "drawn of a Perceiver"
        )
    network = readable(config.model, found.tensors)
    maps = attention_maps(network, batch.arrays, batch.lengths)
    pictures = []
    for modality in maps[0].weights:
        pictures.append(folder.pictures_folder / f"attention_{modality}.png")
        draw(maps, modality, sample, batch.arrays[modality][sample].numpy(), pictures[-1])
    world.close()
    return pictures
