"""Trainings with frozen parameters and an average of the weights, at every ZeRO stage.

They are saved before, at and after the step that unfreezes some.

As a script: train on this number of ranks, resume each save, and print what came out; argument: folder for checkpoints.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import xxhash
from tiny import LAMB, OPTIMIZER, engine, share, whole_batch

from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig
from trainer.engine.engine import Engine
from trainer.run_state import RunState

FIRST_STEP, LAST_STEP = 3, 6
SAVES = (2, 3, 4)
EMA = EmaConfig(decay=0.9, every_steps=2)
RULES = {
    "freeze": ("norm.weight", f"first.*={FIRST_STEP}"),
    "rate_factors": ("last.*=2",),
    "decay_factors": ("first.*=0.5",),
}
CASES = {f"adamw/{stage}": (replace(OPTIMIZER, **RULES), stage) for stage in range(4)} | {
    # ZeRO 1 and 2 cut alike.
    f"lamb/{stage}": (replace(LAMB, **RULES), stage)
    for stage in range(2)
}


def made(world: World, case: str, **options: Any) -> Engine:  # noqa: ANN401
    optimizer, stage = CASES[case]
    return engine(
        world,
        zero_stage=stage,
        steps=LAST_STEP,
        optimizer=optimizer,
        micro_batch=4,
        log_every_steps=1,
        ema=EMA,
        **options,
    )


def digest(trained: Engine, world: World) -> dict[str, str]:
    """Return a hash of every tensor that any rank holds."""
    mine = {
        f"{kind} {name}": xxhash.xxh3_64_hexdigest(tensor.numpy().tobytes())
        for kind, tensors in trained.snapshot().items()
        for name, tensor in tensors.items()
    }
    return {name: value for part in world.gather(mine) for name, value in part.items()}


def train(trained: Engine, world: World, first: int, last: int) -> list[list[float]]:
    reports = [trained.step(share(whole_batch(step), world)) for step in range(first, last)]
    return [[report.loss, report.grad_norm] for report in reports]


def straight(world: World, folder: Path, case: str) -> dict[str, Any]:
    """Train without a stop; return losses and norms, and the state at the start, at each save and at the end."""
    trained = made(world, case)
    found: dict[str, Any] = {"told": [], 0: digest(trained, world)}
    for first, last in zip((0, *SAVES), (*SAVES, LAST_STEP), strict=True):
        found["told"] += train(trained, world, first, last)
        found[last] = digest(trained, world)
        if last in SAVES:
            store = Store(folder / case / str(last), CheckpointConfig(asynchronous=False), world)
            store.save(trained, RunState(step=last))
            store.close()
    found["progress"] = asdict(trained.progress())
    trained.close()
    return found


def resumed(world: World, folder: Path, case: str, step: int) -> dict[str, Any]:
    """Return the same of a training that resumes from a save, on any number of ranks."""
    trained = made(world, case, seed=7)
    store = Store(folder / case / str(step), CheckpointConfig(asynchronous=False), world)
    assert store.load(trained) is not None
    found: dict[str, Any] = {step: digest(trained, world), "told": train(trained, world, step, LAST_STEP)}
    store.close()
    found |= {LAST_STEP: digest(trained, world), "progress": asdict(trained.progress())}
    trained.close()
    return found


if __name__ == "__main__":
    world, folder = World.from_environment(60.0), Path(sys.argv[1])
    result = {
        case: {
            "straight": straight(world, folder, case),
            **{step: resumed(world, folder, case, step) for step in SAVES},
        }
        for case in CASES
    }
    world.close()
    sys.stdout.write(json.dumps(result))
