"""Which parameters of a run are trained, and how: checked before its folder is made, and said at each start."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from configs.run import RunConfig
from data_shards.files.display import printable
from model.custom import new_network
from trainer.config import OptimizerConfig
from trainer.optim.groups import idle_rules, treatments

_SHOWN = 4


def check(config: RunConfig) -> None:
    """Raise ValueError where the rules of the optimizer do not fit the network."""
    if _has_rules(config.optimizer):
        treatments(_shapes(config), config.optimizer)


def sentences(config: RunConfig) -> Iterator[str]:
    """Yield what is frozen, how long, what has a rate or a decay of its own, and which rules do nothing."""
    if not _has_rules(config.optimizer):
        return
    # Not of the network that trains: at ZeRO 3 its parameters have no sizes.
    network = _shapes(config)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    how = treatments(network, config.optimizer)
    yield from idle_rules(network, config.optimizer)
    # None sorts as 0: what is never trained comes first.
    for first in sorted({each.first_step for each in how.values()} - {0}, key=lambda first: first or 0):
        names = [name for name, each in how.items() if each.first_step == first]
        until = "for the whole run" if first is None else f"until step {first}"
        yield f"freezes {until}: {_listed(names, sizes)}"
    trained = {name: each for name, each in how.items() if each.first_step is not None}
    for factor in sorted({each.rate_factor for each in trained.values()} - {1.0}):
        names = [name for name, each in trained.items() if each.rate_factor == factor]
        yield f"learning rate x {factor:.4g}: {_listed(names, sizes)}"
    for factor in sorted({each.decay_factor for each in trained.values()} - {1.0}):
        names = [name for name, each in trained.items() if each.decay_factor == factor and not each.is_exempt]
        yield f"weight decay x {factor:.4g}: {_listed(names, sizes)}"


def _shapes(config: RunConfig) -> nn.Module:
    """Return the network without memory for its weights."""
    with torch.device("meta"):
        return new_network(config.model, seed=0)


def _has_rules(config: OptimizerConfig) -> bool:
    return bool(config.freeze or config.rate_factors or config.decay_factors) or config.layer_decay != 1


def _listed(names: Sequence[str], sizes: dict[str, int]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    tensors = f"{len(names)} of {len(sizes)} tensors"
    parameters = f"{sum(sizes[name] for name in names):,} of {sum(sizes.values()):,} parameters"
    return printable(f"{tensors}, {parameters} ({', '.join(names[:_SHOWN])}{more})")
