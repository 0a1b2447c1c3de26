"""For every ZeRO stage: train 6 steps and save after 3; load into a fresh engine; print losses and state digests.

At stage 1 training goes on until 50 steps were made after the save, where it is asked for, and after the first load.

Arguments: the folder for the checkpoints; "save", or "load" to load what another world wrote; the distances between the
stages of who saves and who loads, as 0,1,3; and how many steps are made after the save at stage 1.
"""

import json
import sys
from pathlib import Path

import xxhash
from tiny import engine, share, whole_batch

from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig
from trainer.engine.engine import Engine
from trainer.run_state import RunState


def digest(trained: Engine) -> list[str]:
    """Return a hash of every tensor that any rank holds, in an order that no world changes."""
    mine = {
        f"{kind} {name}": xxhash.xxh3_64_hexdigest(tensor.numpy().tobytes())
        for kind, tensors in trained.snapshot().items()
        for name, tensor in tensors.items()
    }
    return sorted(f"{name} {value}" for part in world.gather(mine) for name, value in part.items())


def train(trained: Engine, first: int, last: int) -> list[float]:
    return [float(trained.step(share(whole_batch(step), world)).loss) for step in range(first, last)]


LONG_STAGE = 1
EMA = EmaConfig(decay=0.9, every_steps=2)
folder, mode, distances = Path(sys.argv[1]), sys.argv[2], [int(word) for word in sys.argv[3].split(",")]
last_step = 3 + int(sys.argv[4])
world = World.from_environment(60.0)
result = {}
for stage in range(4):
    store = Store(folder / str(stage), CheckpointConfig(asynchronous=stage % 2 == 0), world)
    entry = result[stage] = {}
    if mode == "save":
        straight = engine(world, zero_stage=stage, steps=53, ema=EMA)
        train(straight, 0, 3)
        store.save(straight, RunState(step=3))
        entry["saved"] = digest(straight)
        store.wait()
        entry["straight_losses"] = train(straight, 3, 6)
        entry["straight"] = digest(straight)
        if stage == LONG_STAGE:
            entry["straight_losses"] += train(straight, 6, last_step)
        assert store.load(straight) is not None
        entry["back_losses"] = train(straight, 3, 6)
        straight.close()
    for distance in distances:
        stage_here, micro_batch = (stage + distance) % 4, 4 if distance else 0
        resumed = engine(world, seed=7, zero_stage=stage_here, micro_batch=micro_batch, steps=53, ema=EMA)
        loaded = store.load(resumed)
        assert loaded is not None
        assert loaded.state == RunState(step=3)
        entry[f"loaded_{distance}"] = digest(resumed)
        entry[f"resumed_losses_{distance}"] = train(resumed, 3, 6)
        entry[f"resumed_{distance}"] = digest(resumed)
        if stage == LONG_STAGE and distance == distances[0]:
            entry[f"resumed_losses_{distance}"] += train(resumed, 6, last_step)
        resumed.close()
    store.close()
world.close()
sys.stdout.write(json.dumps(result))
