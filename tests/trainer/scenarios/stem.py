"""A network with a batch norm trains; print what came of it.

{"MICRO_BATCH/STAGE": {"losses": [...], "weights": {name: sum}, "running": [mean and variance, summed]}}
"""

import json
import sys

import torch
from torch import nn

from data_shards.loading.batch import Batch
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.tasks.objective import Objective, objective

GLOBAL_BATCH, STEPS = 8, 4
CONFIG = PerceiverConfig(
    inputs={"image": ImageInput(height=12, width=10, conv_stem=True, positions=PositionsConfig(num_bands=2))},
    outputs={"label": LabelOutput(num_classes=3)},
    num_latents=4,
    latent_width=16,
    num_cross_attends=1,
    num_blocks=1,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=2),
)
GOAL: Objective = objective(CONFIG.answers())
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, epsilon=1e-4)
NORM = "inputs.adapters.image.stem.norm."


def images(index: int) -> Batch:
    """Return a global batch whose samples differ in brightness and contrast, and of which one lacks its image."""
    generator = torch.Generator().manual_seed(index)
    levels = torch.rand(2, GLOBAL_BATCH, 1, 1, 1, generator=generator)
    noise = torch.rand(GLOBAL_BATCH, 12, 10, 3, generator=generator)
    lengths = torch.full((GLOBAL_BATCH,), 12)
    lengths[3] = 0
    return Batch(
        arrays={"image": (255 * (levels[0] / 2 + levels[1] / 2 * noise)).to(torch.uint8)},
        lengths={"image": lengths},
        labels=torch.randint(0, 3, (GLOBAL_BATCH,), generator=generator),
        weights=(lengths > 0).float(),
        keys=tuple(f"{index}-{row}" for row in range(GLOBAL_BATCH)),
    )


def engine(world: World, *, network: nn.Module | None = None, **train: object) -> Engine:
    """Return an engine over a small network with a stem."""
    fields = {"steps": STEPS, "global_batch": GLOBAL_BATCH, "collective_timeout_seconds": 60.0, **train}
    built = network or Perceiver(CONFIG, seed=0)
    return Engine(built, GOAL, optimizer=OPTIMIZER, train=TrainConfig(**fields), world=world)


def trained(engine: Engine, world: World, first: int = 0, last: int = STEPS) -> list[float]:
    """Return the losses of some steps."""
    batches = (images(step).micro_batches(world.world_size)[world.rank] for step in range(first, last))
    return [float(engine.step(batch).loss) for batch in batches]


def running(engine: Engine) -> list[list[float]]:
    """Return the running statistics of the engine's network, those of this rank."""
    norm = engine.network.module.inputs.adapters["image"].stem.norm
    return [norm.running_mean.tolist(), norm.running_var.tolist()]


if __name__ == "__main__":
    world = World.from_environment(60.0)
    result = {}
    share = GLOBAL_BATCH // world.world_size
    sizes = [size for size in (1, 2, 4, 8) if size <= share]
    # Every stage and every size of a micro-batch, the more of them the more a stage cuts.
    for stage in range(4):
        micro_batch = sizes[max(0, len(sizes) - 1 - stage)]
        built = engine(world, micro_batch=micro_batch, zero_stage=stage)
        losses = trained(built, world)
        weights = {name: tensor.double().norm().item() for name, tensor in built.snapshot()["weight"].items()}
        result[f"{micro_batch}/{stage}"] = {"losses": losses, "weights": weights, "running": running(built)}
        built.close()
    world.close()
    sys.stdout.write(json.dumps(result))
