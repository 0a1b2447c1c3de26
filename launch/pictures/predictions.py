"""Pictures of the first test samples, which a run shows in TensorBoard next to its metrics."""

import math
from collections.abc import Mapping

import numpy as np
from torch import nn

from data_shards.loading.batch import Batch
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.modality import Modality
from trainer.distributed.world import World
from trainer.evaluation.inference import reconstructions
from trainer.tasks.kinds.grid import PIXEL_RANGE
from trainer.tasks.objective import Objective

_NUM_SHOWN = 8


def shown(
    network: nn.Module, objective: Objective, batch: Batch, world: World, inputs: Mapping[str, Modality]
) -> dict[str, np.ndarray]:
    """Return the images and clips of a few samples and, for reconstructed inputs, the reconstructions. Collective.

    uint8 (H, W, 3) by name, on the first rank.
    """
    # micro_batches() cuts into equal parts alone.
    num_shown = math.gcd(len(batch.keys), _NUM_SHOWN)
    few = batch.micro_batches(len(batch.keys) // num_shown)[0].to(world.device)
    # All ranks take part: with ZeRO 3 each has a part of the weights.
    pairs = reconstructions(network, objective, few)
    if not world.is_first:
        return {}
    # Only now: every start of every rank would wait 0.4 s for matplotlib.
    from launch.pictures import drawing

    figures = {}
    for name, section in inputs.items():
        if isinstance(section, ImageConfig | VideoConfig) and name in few.arrays.keys() - pairs.keys():
            values = few.arrays[name].cpu().numpy()
            is_raw = getattr(section, "values", "") == "raw"
            bright = values / PIXEL_RANGE if values.dtype == np.uint8 else values
            figures[f"inputs/{name}"] = drawing.samples({"input": bright}, is_unit=not is_raw)
    for name, (truth, drawn) in pairs.items():
        task = objective.tasks[name]
        seen = task.seen(few)
        rows = drawing.rows_of(
            truth.cpu().numpy(),
            drawn.cpu().numpy(),
            None if seen is None else seen.cpu().numpy(),
            inputs[task.output.target].shape[0],
        )
        figures[f"reconstructions/{name}"] = drawing.samples(rows, is_unit=task.shows_unit_range)
    return {name: drawing.pixels(figure) for name, figure in figures.items()}
