"""Print the losses and norms of ten steps, for every ZeRO stage and cut into micro-batches."""

import json
import sys

from tiny import engine, share, whole_batch

from trainer.world import World

world = World.from_environment(60.0)
result = {}
for zero_stage in range(4):
    for micro_batch in (0, 4):
        trained = engine(world, zero_stage=zero_stage, micro_batch=micro_batch)
        reports = [trained.step(share(whole_batch(step), world)) for step in range(10)]
        result[f"{zero_stage}/{micro_batch}"] = [[float(report.loss), report.grad_norm] for report in reports]
        trained.close()
world.close()
sys.stdout.write(json.dumps(result))
