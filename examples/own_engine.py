"""Checkpoints around a DeepSpeed engine of one's own, at any ZeRO stage and number of processes.

torchrun --nproc-per-node 2 examples/own_engine.py checkpoints
"""

import sys

import deepspeed
import torch
from torch import nn

from perceiver_trainer import CheckpointStore

STEPS = 20
CONFIG = {"train_batch_size": 8, "zero_optimization": {"stage": 1}}


def main(folder: str) -> None:
    """Learn to tell whether numbers sum to more than 0, from whatever the folder of checkpoints holds."""
    # On a GPU both: weights are exchanged by nccl, the names and places of what is saved by gloo.
    torch.distributed.init_process_group("gloo" if not torch.cuda.is_available() else "cpu:gloo,cuda:nccl")
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=CONFIG)
    with CheckpointStore(folder, engine) as store:
        restored = store.load()
        for step in range(restored.step if restored else 0, STEPS):
            # What a step sees depends on the step alone, so that it resumes as it was.
            values = torch.randn(8, 16, generator=torch.Generator().manual_seed(step)).chunk(world_size)[rank]
            values = values.to(engine.device)
            loss = nn.functional.cross_entropy(engine(values), (values.sum(dim=1) > 0).long())
            engine.backward(loss)
            engine.step()
            if rank == 0:
                print(step + 1, loss.item(), flush=True)
            if (step + 1) % 5 == 0:
                store.save(step + 1)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
