"""The parameters of a run that are frozen for the whole of it, and need neither gradients nor moments."""

import torch

from configs.run import RunConfig
from model.custom import new_network
from trainer.optim.groups import treatments


def num_frozen(config: RunConfig) -> int:
    """Return how many they are; those that are trained from a later step on are not among them."""
    if not config.optimizer.freeze:
        return 0
    with torch.device("meta"):  # sizes alone
        network = new_network(config.model, seed=0)
    # By the very function that trains them: a plan that read the patterns itself might read them otherwise.
    how = treatments(network, config.optimizer)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return sum(size for name, size in sizes.items() if how[name].first_step is None)
