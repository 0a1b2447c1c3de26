"""What a network takes, counted while it runs: on tensors without data, or where it reads values, on zeros.

Operations are those of matrix products, convolutions and attention. Activations are what autograd keeps, in float32:
under autocast to half precision they are fewer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.config.perceiver import PerceiverConfig
from model.custom import empty_batch
from model.network import AnyNetwork

SAMPLES = 2
"""More than one: a batch norm refuses a single value."""
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """The size of a network, and what one pass over one sample takes."""

    parameters: int
    """Weights."""
    flops: int
    """Operations."""
    activation_bytes: int
    """What is kept for the backward pass."""


def anywhere(run: Callable[[torch.device], T]) -> T:
    """Return what is counted without data, or where a module reads values, on the CPU."""
    try:
        with torch.device("meta"):
            return run(torch.device("meta"))
    # Whatever a module does with values: a number that it reads, an index, a loop. With values it is counted as well.
    except RuntimeError:
        with torch.device("cpu"):
            return run(torch.device("cpu"))


def measured(make: Callable[[], AnyNetwork], config: PerceiverConfig, *, trains: bool = False) -> Measured:
    """Return what a forward pass takes of the network that is made, with the backward pass where it `trains`."""

    def run(_: torch.device) -> Measured:
        network = make()
        batch = empty_batch(config, SAMPLES)
        own = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers(), *batch.values())}
        # Kept until the end: the memory of one that is gone may be another's.
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in own:
                kept[_storage(tensor)] = tensor
            return tensor

        counter = FlopCounterMode(display=False)
        with counter:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                answers = network(batch)
            if trains:
                torch.autograd.backward(torch.stack([answer.float().sum() for answer in answers.values()]).sum())
        size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return Measured(parameters, counter.get_total_flops() // SAMPLES, size // SAMPLES)

    return anywhere(run)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
