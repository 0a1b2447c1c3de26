"""Print what two steps of a Perceiver with shared weights report: "STAGE/POLICY" -> [loss, norm] of each step."""

import json
import sys

import torch
from tiny import CLASSES, GLOBAL_BATCH, OPTIMIZER, share, whole_batch

from model.budget.plan import POLICIES
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine

torch.set_num_threads(1)
world = World.from_environment(60.0)
told = {}
for stage in range(4):
    for policy in POLICIES:
        network = Perceiver(
            PerceiverConfig(
                inputs={"points": PointsInput(num_points=11, num_bands=4, max_frequency=4.0)},
                outputs={"label": LabelOutput(num_classes=5)},
                num_latents=6,
                latent_width=32,
                num_cross_attends=2,
                num_blocks=2,
                layers_per_block=1,
                self_attend=AttentionConfig(num_heads=4),
                activation_checkpointing=policy,
            ),
            seed=0,
        )
        train = TrainConfig(
            steps=2, global_batch=GLOBAL_BATCH, zero_stage=stage, micro_batch=4, collective_timeout_seconds=60.0
        )
        engine = Engine(network, CLASSES, optimizer=OPTIMIZER, train=train, world=world)
        reports = [engine.step(share(whole_batch(step), world)) for step in range(2)]
        told[f"{stage}/{policy}"] = [[float(report.loss), float(report.grad_norm)] for report in reports]
        engine.close()
world.close()
sys.stdout.write(json.dumps(told))
