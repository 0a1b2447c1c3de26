"""Print what the ranks exchange in one step of a loop, between two log lines: [[operation, elements], ...]."""

import functools
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny import engine, share, whole_batch

from data_shards.loading.batch import Batch
from launch.lifecycle.agreement import leave
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, TrainConfig
from trainer.distributed.world import World
from trainer.feed import Feed
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.run_state import RunState

STEPS, WATCHED = 8, 5
world = World.from_environment(60.0)
made: list[list[Any]] = []
step = 0


def noted(name: str) -> None:
    original = getattr(dist, name)

    @functools.wraps(original)
    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        first = arguments[0] if arguments else next(iter(options.values()))
        if step == WATCHED:
            made.append([name, first.numel() if isinstance(first, torch.Tensor) else 0])
        return original(*arguments, **options)

    setattr(dist, name, call)


for name in ("all_reduce", "reduce", "broadcast", "all_gather_into_tensor", "all_gather", "barrier"):
    noted(name)


def batches(index: int) -> Batch:
    global step
    step = index
    return replace(share(whole_batch(index), world), index=index)


trained = engine(world, zero_stage=int(sys.argv[1]), steps=STEPS, log_every_steps=100)
store = Store(Path(sys.argv[2]), CheckpointConfig(save_every_steps=0), world)
fit(
    TrainConfig(steps=STEPS, global_batch=16, log_every_steps=100),
    engine=trained,
    batches=Feed(batches, world, partial(leave, world)),
    state=RunState(),
    store=store,
    sinks=[],
    stop=StopRequest(),
    world=world,
)
store.close()
trained.close()
world.close()
sys.stdout.write(json.dumps(made))
