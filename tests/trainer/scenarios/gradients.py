"""Print, for trainings whose gradients travel in different ways, the losses and the types of what was summed.

"STAGE/PRECISION/WAY": [[losses], [types of sums of more than a few elements]]
"""

import functools
import json
import sys
from typing import Any

import torch.distributed as dist
from tiny import engine, share, whole_batch

from trainer.distributed.world import World

WAYS = {
    "default": {},
    "bf16": {"gradient_dtype": "bf16"},
    "early": {"gradient_exchange": "during_backward", "gradient_bucket_mib": 1},
}
world = World.from_environment(60.0)
types: set[str] = set()
original = dist.all_reduce


@functools.wraps(original)
def all_reduce(tensor: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
    if tensor.numel() > 100:
        types.add(str(tensor.dtype))
    return original(tensor, *arguments, **options)


dist.all_reduce = all_reduce
told = {}
for stage in range(3):
    for way, keys in WAYS.items():
        if way == "early" and stage == 0:
            continue
        types.clear()
        trained = engine(world, zero_stage=stage, precision=sys.argv[1], micro_batch=4, **keys)
        losses = [trained.step(share(whole_batch(step), world)).loss for step in range(3)]
        trained.close()
        told[f"{stage}/{way}"] = [losses, sorted(types)]
world.close()
sys.stdout.write(json.dumps(told))
