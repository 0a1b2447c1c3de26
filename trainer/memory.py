"""Cutting the micro-batch until it fits: out of memory is met before training, where the ranks can still agree.

In the middle of a step they cannot: who ran out would leave the others waiting in a collective.
"""

from dataclasses import replace

import torch
from torch import nn

from data_shards.batch import Batch
from trainer.config import TrainConfig
from trainer.objective import Objective
from trainer.world import World

_STATE_BYTES_PER_PARAMETER = 16  # fp32 weight, gradient and two moments, as ZeRO 0 has them


def fitting(network: nn.Module, objective: Objective, share: Batch, train: TrainConfig, world: World) -> TrainConfig:
    """Return the configuration with the largest micro-batch, halved from its own, that fits on every rank. Collective.

    Tries a forward and a backward pass of one micro-batch beside as much memory as the optimizer will take. The
    network's gradients are left empty, its weights as they are. ValueError if a single sample does not fit.
    """
    network.to(world.device)
    while True:
        parts = train.micro_batches_per_rank(world.world_size)
        rows = len(share.keys) // parts
        if not world.agree(not _fits(network, objective, share.micro_batches(parts)[0], world)):
            return train
        if rows == 1:
            raise ValueError(
                "one sample a micro-batch does not fit into the memory of the device; take a smaller network, "
                "model.activation_checkpointing=blocks, or a higher train.zero_stage"
            )
        train = replace(train, micro_batch=_smaller_divisor(len(share.keys), rows))


def _fits(network: nn.Module, objective: Objective, batch: Batch, world: World) -> bool:
    try:
        num_parameters = sum(parameter.numel() for parameter in network.parameters())
        ballast = torch.empty(num_parameters * _STATE_BYTES_PER_PARAMETER, dtype=torch.uint8, device=world.device)
        # As in evaluation: a trial is no step of training, and must not enter the running statistics of a batch norm.
        network.eval()
        sums = objective.sums(network, batch.to(world.device))
        torch.stack(list(sums.values())).sum().backward()  # type: ignore[no-untyped-call]
        del ballast
    except torch.OutOfMemoryError:
        return False
    finally:
        network.zero_grad(set_to_none=True)
        network.train()
        if world.device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def _smaller_divisor(share: int, rows: int) -> int:
    """Return the largest divisor of the share that is at most half of the rows."""
    return next(divisor for divisor in range(rows // 2, 0, -1) if share % divisor == 0)
