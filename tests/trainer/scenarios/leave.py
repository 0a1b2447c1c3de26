"""End a process whose gloo threads get the processor only when nothing else wants it.

Without an argument as a script that closes its world does, with a run's folder as a rank that met bad input in it.
"""

import os
import runpy
import sys
import threading
from pathlib import Path

import torch
import torch.distributed as dist

import configs.run
from launch.run import composition
from trainer.distributed.world import World


def starved_world() -> World:
    world = World.from_environment(60.0)
    world.sum(torch.ones(()))
    cores = sorted(os.sched_getaffinity(0))
    own = {cores[world.rank % len(cores)]}
    os.sched_setaffinity(0, own)
    for thread in {int(path.name) for path in Path("/proc/self/task").iterdir()} - {threading.get_native_id()}:
        os.sched_setaffinity(thread, own)
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    return world


def refused(_config: object, _path: Path, **_: object) -> int:
    starved_world().sum(torch.ones(()))
    raise ValueError("bad input")


if len(sys.argv) == 1:
    world = starved_world()
    kept = dist.group.WORLD  # as DeepSpeed does
    world.close()
    sys.stdout.write("true")
else:
    configs.run.load, composition.main = (lambda _path: None), refused
    runpy.run_module("launch.supervise.rank", run_name="__main__")
