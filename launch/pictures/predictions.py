"""Pictures of the first test samples, which a run shows in TensorBoard next to its metrics."""

import math

import numpy as np
from torch import nn

from data_shards.loading.batch import Batch
from trainer.distributed.world import World
from trainer.evaluation import reconstructions
from trainer.tasks.grid import PIXEL_RANGE
from trainer.tasks.objective import Objective

_SEEN = ("image", "video")
_NUM_SHOWN = 8


def shown(network: nn.Module, objective: Objective, batch: Batch, world: World) -> dict[str, np.ndarray]:
    """Return the inputs of a few samples and, for reconstructed modalities, the reconstructions. Collective.

    uint8 (H, W, 3) by name, on the first rank.
    """
    num_shown = math.gcd(len(batch.keys), _NUM_SHOWN)
    few = batch.micro_batches(len(batch.keys) // num_shown)[0].to(world.device)
    pairs = reconstructions(network, objective, few)
    if not world.is_first:
        return {}
    # Only now: every start of every rank would wait 0.4 s for matplotlib.
    from launch.pictures import drawing

    seen = {
        name: few.arrays[name].cpu().numpy() / PIXEL_RANGE for name in _SEEN if name in few.arrays.keys() - pairs.keys()
    }
    rows = {f"inputs/{name}": {"input": values} for name, values in seen.items()} | {
        f"reconstructions/{name}": {"input": truth.cpu().numpy(), "drawn": drawn.cpu().numpy()}
        for name, (truth, drawn) in pairs.items()
    }
    return {name: drawing.pixels(drawing.samples(of_name)) for name, of_name in rows.items()}
