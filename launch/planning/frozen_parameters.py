"""What freezing spares a run: gradients and moments, and the passes and activations that only these need."""

from dataclasses import dataclass, replace

import torch

from configs.run import RunConfig
from model.budget.counting import Measured, measured
from model.config.perceiver import PerceiverConfig
from model.custom import new_network
from model.network import AnyNetwork
from trainer.config import OptimizerConfig
from trainer.optim.groups import freeze, treatments


@dataclass(frozen=True)
class Share:
    """The cost of a step with frozen parameters, as a share of that of a step which trains all of them."""

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
    whole, here = (_measured(config.model, each) for each in (replace(config.optimizer, freeze=()), config.optimizer))
    return Share(here.flops / whole.flops, here.activation_bytes / whole.activation_bytes)


def _measured(network: PerceiverConfig, optimizer: OptimizerConfig) -> Measured:
    """Return what a forward and a backward pass take."""
    # Of a plug-in's network it is "none" already.
    config = replace(network, activation_checkpointing="none")

    def make() -> AnyNetwork:
        made = new_network(config, seed=0).eval()
        freeze(made, optimizer)
        return made

    return measured(make, config, trains=True)
