"""A training loop of one's own that can be killed at any time and resumes with equal bits.

perceiver data build digits data/digits
python examples/own_loop.py data/digits checkpoints
"""

import sys

import torch
from torch import nn

from perceiver_trainer import CheckpointStore, DataConfig, ImageConfig, ShardLoader

STEPS, SAVE_EVERY = 60, 10


def main(shards: str, folder: str) -> None:
    """Train a small classifier of digits to STEPS, from whatever the folder of checkpoints holds."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.GELU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    data = DataConfig(shards=shards, inputs={"image": ImageConfig(height=8, width=8)})
    with (
        ShardLoader(data, global_batch=32, seed=0) as loader,
        CheckpointStore(folder, network, optimizer, also={"loader": loader}) as store,
    ):
        # Weights, moments and the loader's step come from one checkpoint: a loop that resumes sees the samples that
        # follow.
        store.load()
        while loader.step < STEPS:
            for batch in loader:
                images = batch.arrays["image"] / 255
                loss = nn.functional.cross_entropy(network(images), batch.labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                print(loader.step, loss.item(), flush=True)
                if loader.step % SAVE_EVERY == 0 or loader.step == STEPS:
                    store.save(loader.step)
                if loader.step == STEPS:
                    break


if __name__ == "__main__":
    main(*sys.argv[1:])
