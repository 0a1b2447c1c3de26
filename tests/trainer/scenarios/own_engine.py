"""An engine of one's own by deepspeed.initialize: train to a step from whatever FOLDER has, save, tell what came out.

own_engine.py FOLDER STAGE PRECISION LAST_STEP
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tiny import Network, share, whole_batch

from trainer.distributed.world import World
from trainer.engine.deepspeed_start import _import_deepspeed
from trainer.standalone.checkpoint_store import CheckpointStore

BATCH = 16


def engine(world: World, stage: int, precision: str = "fp32", seed: int = 0, **changes: Any) -> Any:  # noqa: ANN401
    network = Network(seed)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    zero = {"stage": stage, **changes.pop("zero", {})}
    config = {
        "train_batch_size": BATCH,
        "zero_optimization": zero,
        "gradient_clipping": 1.0,
        **({precision: {"enabled": True}} if precision != "fp32" else {}),
        **changes,
    }
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    made, *_ = _import_deepspeed(world).initialize(model=network, optimizer=optimizer, config=config)
    return made


def train(made: Any, world: World, first: int, last: int) -> list[float]:  # noqa: ANN401
    losses = []
    for step in range(first, last):
        batch = share(whole_batch(step), world)
        answers = made(batch.arrays, batch.lengths)["label"].float()
        loss = torch.nn.functional.cross_entropy(answers, batch.labels.clamp(min=0))
        made.backward(loss)
        made.step()
        losses.append(float(world.sum(loss.detach())) / world.world_size)
    return losses


def main(folder: Path, stage: int, precision: str, last: int) -> dict[str, object]:
    world = World.from_environment(timeout_seconds=120)
    made = engine(world, stage, precision, seed=world.world_size)
    with CheckpointStore(folder, made, asynchronous=False) as store:
        restored = store.load()
        first = restored.step if restored else 0
        losses = train(made, world, first, last)
        store.save(last)
    world.close()
    return {"first": first, "losses": losses, "steps": made.global_steps}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))  # noqa: T201
