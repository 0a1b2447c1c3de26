"""Print the bytes that a step exchanges, counted and as trainer/engine/communication.py has them.

"STAGE" -> [counted, told].

`exchanged.py MICRO_BATCH` on gloo ranks; `exchanged.py MICRO_BATCH WORLD_SIZE` as the first of a fake group's ranks.
"""

import json
import os
import sys
from collections import Counter
from typing import Any

import torch
import torch.distributed as dist
from tiny import CLASSES, OPTIMIZER, whole_batch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import TrainConfig
from trainer.distributed.world import World
from trainer.engine.communication import exchanges, small_messages
from trainer.engine.engine import Engine

SMALL_BYTES = 16
# The argument that has the whole tensor, whoever holds which part of it.
WHOLE = {
    "allreduce_": ("all_reduce", 0),
    "_allgather_base_": ("all_gather", 0),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
}


class Counted(TorchDispatchMode):
    """Bytes and calls of collectives by kind; sums of a few numbers are counted as "small"."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func.namespace == "c10d":
            name = func.overloadpacket.__name__
            kind, place = WHOLE.get(name, (name, 0))
            tensors = args[place] if isinstance(args[place], list) else [args[place]]
            num_bytes = sum(tensor.nbytes for tensor in tensors)
            if num_bytes <= SMALL_BYTES:
                self.found["small"] += 1
            else:
                self.found[kind] += num_bytes
                self.found[f"{kind} calls"] += 1
        return func(*args, **(kwargs or {}))


def world_of(arguments: list[str]) -> World:
    if not arguments:
        return World.from_environment(60.0)
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=int(arguments[0]))
    # DeepSpeed asks for these, though the group is there.
    os.environ.update(WORLD_SIZE=arguments[0])
    return World(0, int(arguments[0]), 0, torch.device("cpu"))


torch.set_num_threads(1)
world = world_of(sys.argv[2:])
told = {}
for stage in range(4):
    network = Perceiver(
        PerceiverConfig(
            inputs={"points": PointsInput(num_points=11, num_bands=4, max_frequency=4.0)},
            outputs={"label": LabelOutput(num_classes=5)},
            num_latents=6,
            # Its larger weights are above what stage 3 keeps gathered, its smaller ones below.
            latent_width=104,
            num_cross_attends=2,
            num_blocks=1,
            layers_per_block=2,
        ),
        seed=0,
    )
    train = TrainConfig(global_batch=2 * 4 * world.world_size, zero_stage=stage, micro_batch=int(sys.argv[1]))
    expected: Counter[str] = Counter(small=small_messages(train, world.world_size))
    for exchange in exchanges(network, OPTIMIZER, train, world.world_size, "cpu"):
        expected[exchange.kind] += exchange.num_bytes
        expected[f"{exchange.kind} calls"] += exchange.calls
    engine = Engine(network, CLASSES, optimizer=OPTIMIZER, train=train, world=world)
    for step in range(3):  # the first has what DeepSpeed learns from it
        with Counted() as counted:
            engine.step(whole_batch(step, 8))
    engine.close()
    told[stage] = [counted.found, expected]
sys.stdout.write(json.dumps(told))
sys.stdout.flush()
# Nobody else is there to leave with.
os._exit(0) if len(sys.argv) > 2 else world.close()
