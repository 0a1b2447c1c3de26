"""A network with the tensors of somebody else's, each of which must be there and of its shape."""

from collections.abc import Mapping

import torch
from torch import Tensor

from model.checks import check_names, listed
from model.config.perceiver import PerceiverConfig
from model.perceiver import Perceiver


def filled(config: PerceiverConfig, names: Mapping[str, str], state: Mapping[str, Tensor], *, whose: str) -> Perceiver:
    """Return the network with these tensors; `names` has the name of each there by its name here.

    A tensor may have axes of length 1 more or less. ValueError with the missing, surplus or misshapen ones, and those
    that hold no finite numbers.
    """
    with torch.device("meta"):  # shapes alone: what a configuration says may need any memory
        own = Perceiver(config, seed=0).state_dict()
    check_names(whose, names.values(), state)
    shapes = [
        f"{there}: expected {tuple(own[here].shape)}, got {tuple(state[there].shape)}"
        for here, there in names.items()
        if _without_ones(own[here].shape) != _without_ones(state[there].shape)
    ]
    numbers = ((there, _no_number(own[here], state[there])) for here, there in names.items())
    if problems := shapes or [f"{there}: {why}" for there, why in numbers if why]:
        raise ValueError(listed(problems, "; "))
    network = Perceiver(config, seed=0)
    network.load_state_dict({here: state[there].reshape(own[here].shape) for here, there in names.items()})
    return network


def refuse_endless(config: PerceiverConfig, state: Mapping[str, Tensor], key: str) -> None:
    """Raise ValueError where a configuration asks for more layers than there are tensors; before anything is built."""
    layers = config.layers_per_block * (config.num_blocks if config.share_blocks is False else 1)
    if layers > len(state):
        raise ValueError(f"{key}: {layers}, with {len(state)} tensors in all")
    # Shared layers need no tensors of their own, and there may still be too many to list them.
    if problems := [f"{name}: {sentence}" for name, sentence in config.problems()]:
        raise ValueError(listed(problems, "; "))


def _no_number(own: Tensor, given: Tensor) -> str:
    """Return why a tensor is no weight: whole numbers may be those of a quantized one, whose unit is not there."""
    if own.is_floating_point() != given.is_floating_point():
        return f"expected {own.dtype}, got {given.dtype}"
    return "" if given.isfinite().all() else "holds NaN or infinity"


def _without_ones(shape: torch.Size) -> list[int]:
    return [length for length in shape if length != 1]
