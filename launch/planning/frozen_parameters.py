"""What freezing spares a run: gradients and moments, and the passes and activations that only these need."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from configs.run import RunConfig
from model.custom import empty_batch, new_network
from trainer.config import OptimizerConfig
from trainer.optim.groups import freeze, treatments

_SAMPLES = 2
"""More than one: a batch norm refuses a single value."""


@dataclass(frozen=True)
class Share:
    """What a step with frozen parameters takes, as a share of one that trains all of them."""

    operations: float = 1.0
    """Operations, forward and backward."""
    activations: float = 1.0
    """Bytes that are kept for the backward pass."""


def num_frozen(config: RunConfig) -> int:
    """Return how many parameters are frozen for the whole run; those that are trained later are not among them."""
    if not config.optimizer.freeze:
        return 0
    with torch.device("meta"):  # sizes alone
        network = new_network(config.model, seed=0)
    # By the very function that trains them: a plan that read the patterns itself might read them otherwise.
    how = treatments(network, config.optimizer)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return sum(size for name, size in sizes.items() if how[name].first_step is None)


def trained_share(config: RunConfig) -> Share:
    """Return the share of a step, counted while the network runs on tensors without data; 1 where nothing is frozen.

    No gradient passes through what lies before the first parameter that is trained. Counted without activation
    checkpointing, whose share is the same but for what it computes again.
    """
    if not num_frozen(config):
        return Share()
    whole, here = (_counted(config, each) for each in (replace(config.optimizer, freeze=()), config.optimizer))
    return Share(here[0] / whole[0], here[1] / whole[1])


def _counted(config: RunConfig, optimizer: OptimizerConfig) -> tuple[int, int]:
    """Return the operations of a forward and a backward pass, and the bytes that are kept between them."""
    model = config.model if config.model.network else replace(config.model, activation_checkpointing="none")
    with torch.device("meta"):
        network = new_network(model, seed=0).eval()
        freeze(network, optimizer)
        batch = empty_batch(model, _SAMPLES)
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
            torch.autograd.backward(torch.stack([answer.float().sum() for answer in answers.values()]).sum())
    return counter.get_total_flops(), sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
