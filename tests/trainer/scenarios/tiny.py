"""A tiny real network and a tiny batch source, for scripts that run in processes of their own."""

import torch
from torch import nn

from data_shards.loading.batch import Batch
from model.outputs.label import LabelOutput
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig
from trainer.engine.engine import Engine
from trainer.evaluation.evaluation import ALL, Evaluation, Value
from trainer.tasks.metric import Metric
from trainer.tasks.objective import objective

GLOBAL_BATCH = 16
CLASSES = objective({"label": LabelOutput(num_classes=5)})
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5, warmup_steps=2)

LAMB = OptimizerConfig(
    name="lamb",
    learning_rate=1e-2,
    weight_decay=0.1,
    clip_norm=10.0,
    epsilon=1e-6,
    schedule="flat_cosine",
    flat_steps=8,
)


class Network(nn.Module):
    """Weights that ZeRO 3 partitions, sizes that no cut fits, a buffer and a frozen parameter."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = nn.Linear(33, 401)
        self.norm = nn.LayerNorm(401)
        self.last = nn.Linear(401, 5)
        self.frozen = nn.Parameter(torch.empty(33), requires_grad=False)
        self.register_buffer("offset", torch.empty(33))
        generator = torch.Generator().manual_seed(seed)
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = torch.randn(tensor.shape, generator=generator) * 0.1

    def forward(self, inputs: dict[str, torch.Tensor], lengths: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        shown = (lengths["points"] > 0)[:, None]
        values = (inputs["points"].flatten(1) * self.frozen + self.offset) * shown
        hidden = self.norm(self.first(values.to(self.first.weight.dtype)))
        return {"label": self.last(nn.functional.gelu(hidden))}


def whole_batch(index: int, num_samples: int = GLOBAL_BATCH) -> Batch:
    """Return global batch `index`; its weights and missing labels differ from part to part."""
    generator = torch.Generator().manual_seed(1000 + index)
    labels = torch.randint(-1, 5, (num_samples,), generator=generator)
    return Batch(
        arrays={"points": torch.randn(num_samples, 11, 3, generator=generator) * 10},
        lengths={"points": torch.full((num_samples,), 11)},
        labels=labels,
        weights=torch.rand(num_samples, generator=generator),
        keys=tuple(f"{index}-{row}" for row in range(num_samples)),
    )


def share(batch: Batch, world: World) -> Batch:
    """Return a rank's part of a global batch."""
    return batch.micro_batches(world.world_size)[world.rank]


def engine(
    world: World,
    *,
    seed: int = 0,
    optimizer: OptimizerConfig = OPTIMIZER,
    ema: EmaConfig | None = None,
    **train: object,
) -> Engine:
    """Return an engine over the tiny network."""
    fields = {"steps": 10, "global_batch": GLOBAL_BATCH, "collective_timeout_seconds": 60.0, **train}
    return Engine(Network(seed), CLASSES, optimizer=optimizer, train=TrainConfig(**fields), world=world, ema=ema)


def accuracy(samples: int, value: float, **alone: float) -> Evaluation:
    """Return what an evaluation found of so many samples: an accuracy, and those of inputs that were shown alone."""
    metric = Metric("accuracy", "%", highest=1.0)
    shown = {ALL: value, **alone}
    return Evaluation(samples, tuple(Value("label", metric, name, found) for name, found in shown.items()))
