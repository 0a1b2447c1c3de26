"""The cost of a plug-in's network, which no configuration tells: counted while it runs on tensors without data.

Operations are those of matrix products, convolutions and attention. Activations are what autograd keeps, in float32:
under autocast to half precision they are fewer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.config.perceiver import PerceiverConfig
from model.custom import CustomModule, empty_batch

_SAMPLES = 2
"""More than one: a batch norm refuses a single value."""


@dataclass(frozen=True)
class Measured:
    """What one forward pass of one sample takes."""

    parameters: int
    """Weights."""
    flops: int
    """Operations."""
    activation_bytes: int
    """What is kept for the backward pass."""


def measured(config: PerceiverConfig) -> Measured:
    """Return the cost of a network; of one that cannot run without data, by running it on the CPU."""
    try:
        return _on(torch.device("meta"), config)
    # Whatever a module does with values: a number that it reads, an index, a loop. With values it is counted as well.
    except (RuntimeError, NotImplementedError):
        return _on(torch.device("cpu"), config)


def _on(device: torch.device, config: PerceiverConfig) -> Measured:
    with device:
        network = CustomModule(config, seed=0)
        batch = empty_batch(config, _SAMPLES)
        own = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers(), *batch.values())}
        # Kept until the end: the memory of one that is gone may be another's.
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in own:
                kept[_storage(tensor)] = tensor
            return tensor

        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(batch)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Measured(parameters, counter.get_total_flops() // _SAMPLES, size // _SAMPLES)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
