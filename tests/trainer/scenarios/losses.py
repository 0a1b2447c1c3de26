"""Print what many small trainings report, each in an engine of its own.

adamw/STAGE/MICRO_BATCH   [loss, norm, norm of the decayed group] of ten steps
lamb/STAGE                the same of twenty steps
broken/STAGE              [is_skipped, loss] of three steps, the second with an infinite sample on the last rank
broken_once/STAGE         the same without that step: what the third must be
"""

import json
import sys
from dataclasses import replace

from tiny import LAMB, engine, share, whole_batch

from data_shards.loading.batch import Batch
from trainer.distributed.world import World
from trainer.engine.step_report import StepReport

world = World.from_environment(60.0)


def broken(batch: Batch) -> Batch:
    if world.rank == world.world_size - 1:
        batch.arrays["points"][0] = float("inf")
        batch.labels[0] = 1
    return batch


def told(report: StepReport) -> list[float]:
    return [float(report.loss), float(report.grad_norm), report.group_norms["decayed"]]


result = {}
for stage in range(4):
    for micro_batch in (0, 4):
        trained = engine(world, zero_stage=stage, micro_batch=micro_batch, log_every_steps=1)
        reports = [trained.step(share(whole_batch(step), world)) for step in range(10)]
        result[f"adamw/{stage}/{micro_batch}"] = [told(report) for report in reports]
        trained.close()
    for name, batches in (("broken", (0, 1, 2)), ("broken_once", (0, 2))):
        trained = engine(world, zero_stage=stage, optimizer=replace(LAMB, name="adamw", schedule="constant"))
        parts = [share(whole_batch(index), world) for index in batches]
        reports = [
            trained.step(broken(part) if index == 1 else part) for index, part in zip(batches, parts, strict=True)
        ]
        result[f"{name}/{stage}"] = [[report.is_skipped, float(report.loss)] for report in reports]
        trained.close()
for stage in range(3):
    trained = engine(world, optimizer=LAMB, steps=20, zero_stage=stage, micro_batch=4, log_every_steps=1)
    result[f"lamb/{stage}"] = [told(trained.step(share(whole_batch(step), world))) for step in range(20)]
    trained.close()
world.close()
sys.stdout.write(json.dumps(result))
