"""`perceiver attention`: pictures of where the latents of the newest checkpoint look."""

from pathlib import Path

from configs.run import load
from launch.folder import RunFolder, existing
from launch.loaders import absolute, test_loader
from trainer import checkpoint_folder
from trainer.attention_maps import attention_maps, draw, readable
from trainer.world import World


def main(path: Path, sample: int) -> list[Path]:
    """Draw a picture a modality of one of the first test samples and return where they are."""
    folder = existing(RunFolder(path.resolve()))
    config = absolute(load(folder.config_path))
    checkpoints = checkpoint_folder.complete(folder.checkpoints_folder)
    if not checkpoints:
        raise ValueError(f"{folder.checkpoints_folder}: holds no complete checkpoint yet; train further")
    world = World.alone()
    found = test_loader(config, folder.quarantine_path, world)
    if found is None:
        raise ValueError(f"{config.data.shards}: has no test split to look at; build it with one")
    loader, _ = found
    with loader:
        batch = loader(0)
    if sample >= batch.num_samples:
        raise ValueError(f"--sample {sample}: the first test batch has {batch.num_samples} samples, from 0")
    network = readable(config.model, checkpoint_folder.read_weights(checkpoints[-1]))
    maps = attention_maps(network, batch.arrays, batch.lengths)
    pictures = []
    for modality in maps[0].weights:
        pictures.append(folder.pictures_folder / f"attention_{modality}.png")
        draw(maps, modality, sample, batch.arrays[modality][sample].numpy(), pictures[-1])
    world.close()
    return pictures
