"""What a task makes beside an answer is made where the answer is. PyTorch's device "meta" stands for a GPU.

An array on the host would not meet one on a device: the operation fails, here as there.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.array import ArrayInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.masked import MaskedOutput
from model.outputs.points import PointsOutput
from trainer.tasks.kinds.autoregressive import AutoregressiveTask
from trainer.tasks.kinds.embedding import EmbeddingTask
from trainer.tasks.kinds.grid import GridTask
from trainer.tasks.kinds.label import LabelTask
from trainer.tasks.kinds.labels import LabelsTask
from trainer.tasks.kinds.masked import MaskedTask
from trainer.tasks.kinds.points import PointsTask

META = torch.device("meta")
CLASSES = {"num_classes": 3, "class_weights": (1.0, 2.0, 3.0)}
IMAGE = ImageInput(height=4, width=6, patch=2, positions=PositionsConfig(num_bands=2))
ARRAY = ArrayInput(shape=(6, 2), positions=PositionsConfig(num_bands=2))


def there(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device=META, dtype=dtype)


def answered(output: Any, **inputs: Any) -> Any:  # noqa: ANN401  # the output with what follows from a network
    network = PerceiverConfig(
        inputs=inputs, outputs={"it": output}, num_latents=4, latent_width=8, num_blocks=1, mask_tokens=True
    )
    return network.answers()["it"]


def batch() -> Batch:
    return Batch(
        {
            "text": there(2, 6, dtype=torch.int64),
            "array": there(2, 6, 2),
            "image": there(2, 4, 6, 3, dtype=torch.uint8),
            "where": there(2, 6, 1),
        },
        {name: there(2, dtype=torch.int64) for name in ("text", "array", "image", "where")},
        there(2, dtype=torch.int64),
        there(2),
        ("a", "b"),
        {"label": there(2, 3)},
    )


TASKS: dict[str, Callable[[], tuple[Any, Tensor]]] = {
    "classes": lambda: (LabelTask("it", LabelOutput(**CLASSES)), there(2, 3)),
    "classes each for itself": lambda: (LabelsTask("it", LabelsOutput(**CLASSES)), there(2, 3)),
    "classes of one softmax": lambda: (LabelsTask("it", LabelsOutput(**CLASSES, loss="softmax")), there(2, 3)),
    "next bytes": lambda: (
        AutoregressiveTask("it", answered(AutoregressiveOutput(target="text"), text=TextInput(max_tokens=6))),
        there(2, 4, 262),
    ),
    "next elements": lambda: (
        AutoregressiveTask("it", answered(AutoregressiveOutput(target="array", num_levels=5), array=ARRAY)),
        there(2, 4, 2, 5),
    ),
    "a pair": lambda: (EmbeddingTask("it", EmbeddingOutput(pair=("text", "array"), width=5)), there(2, 2, 5)),
    "hidden patches": lambda: (
        MaskedTask("it", answered(MaskedOutput(target="image", fraction=0.5), image=IMAGE)),
        there(2, 24, 3),
    ),
    "some cells": lambda: (
        GridTask("it", answered(GridOutput(target="image", train_queries=5), image=IMAGE)),
        there(2, 5, 3),
    ),
    "points": lambda: (
        PointsTask("it", PointsOutput(target="array", coordinates="where", num_channels=2)),
        there(2, 6, 2),
    ),
    "some points": lambda: (
        PointsTask("it", PointsOutput(target="array", coordinates="where", num_channels=2, train_points=3)),
        there(2, 3, 2),
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_loss_and_what_it_is_divided_by_are_where_the_answer_is(name: str) -> None:
    task, answer = TASKS[name]()
    assert task.sum(answer, batch()).device == META
    assert task.count(batch()).device == META
    # What an evaluation asks, too.
    every = task.points(batch(), every=True)
    assert every is None or every.device == META
