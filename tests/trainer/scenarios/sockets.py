"""Print how many sockets a rank has open: alone, among all, after its exchanges, and with five more groups."""

import json
import sys
from pathlib import Path

import torch

from trainer.distributed import descriptors
from trainer.distributed.world import World

# As ranks of a large run do it.
descriptors.CONNECTED_RANKS = 4


def sockets() -> int:
    found = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(str(target).startswith("socket:") for target in found)


counts = [sockets()]
world = World.from_environment(120.0)
counts.append(sockets())
world.maximum(torch.zeros(2))
world.gather("mine")
world.broadcast("of the first")
counts.append(sockets())
groups = [world.twin(120.0) for _ in range(5)]
counts.append(sockets())
sums = [group.sum(torch.full((3,), 0.1 * (world.rank + 1))).tolist() for group in groups]
world.barrier()
sys.stdout.write(json.dumps([counts, sums]) + "\n")
world.close()
