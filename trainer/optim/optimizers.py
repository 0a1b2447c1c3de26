"""Optimizers, from their names in a configuration."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.files.plugin_files import PluginError, place_of
from trainer.config import OptimizerConfig
from trainer.ema_config import EmaConfig
from trainer.optim.groups import parameter_groups
from trainer.optim.lamb import Lamb
from trainer.optim.muon import Muon
from trainer.optimizer_choice import LAMB, MUON, OPTIMIZERS, RunOptimizer

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of the two moments in the state of AdamW and LAMB, and in a checkpoint."""


def make(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer over the parameter groups of a network."""
    groups = parameter_groups(network, config)
    betas = (config.beta1, config.beta2)
    if config.name == LAMB:
        return Lamb(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon)
    if config.name == MUON:
        return skipping(Muon(groups, network, lr=config.learning_rate, betas=betas, eps=config.epsilon))
    if config.name in OPTIMIZERS:
        return skipping(_of_plugin(OPTIMIZERS[config.name](**config.options), groups, config.learning_rate))
    # torch's, not DeepSpeed's: its kernel for the CPU multiplies beta^t up step by step and takes a power after a load,
    # so that resumed weights differed by up to 5e-5. Fused: it reads on the device whether to skip the step.
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)


def skipping(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Make an optimizer leave out a step whose gradient is not finite, as torch's fused optimizers do on the device."""
    step = optimizer.step

    def checked(closure: None = None) -> None:
        assert closure is None
        # Taken away meanwhile: PyTorch's optimizers that are not fused refuse to be told.
        found_inf = vars(optimizer).pop("found_inf", None)
        # The host waits for the device here, as an optimizer of somebody else's does not ask it.
        if found_inf is None or not bool(found_inf):
            step()
        # At ZeRO 1 and 2 DeepSpeed calls this once for each group.
        optimizer.found_inf = found_inf  # type: ignore[attr-defined]

    optimizer.step = checked  # type: ignore[method-assign,assignment]
    return optimizer


def _of_plugin(own: RunOptimizer, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """Return a plug-in's optimizer; PluginError where it does not update what it was given."""
    given = [(set(group["params"]), group["first_step"], group["rate_factor"]) for group in groups]
    made = own.make(groups, learning_rate)
    found = [(set(group["params"]), group.get("first_step"), group.get("rate_factor")) for group in made.param_groups]
    if found != given:
        place = f"{place_of(own.make)}: {type(own).__name__}.make"
        raise PluginError(f"{place} must give its optimizer the groups as they are, with all of their entries")
    return made


def num_beside(config: OptimizerConfig, ema: EmaConfig) -> int:
    """Return how many numbers are kept beside each weight: two moments, and the moving average where there is one.

    Of a plug-in's optimizer what it says; of Muon's matrices one less.
    """
    of_optimizer = OPTIMIZERS[config.name].numbers_per_weight if config.name in OPTIMIZERS else len(MOMENTS)
    return int(of_optimizer) + (ema.decay > 0)


def keeps_moments(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the state of an optimizer is two moments and a count of steps; see zero_state."""
    # Exactly these classes: one derived from them may keep more.
    is_known = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW, Lamb)
    return is_known and not any(group.get("amsgrad") for group in optimizer.param_groups)


def zero_state(parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer the state that it would make at its first step, so that one can be saved or loaded before."""
    for parameter in parameters:
        optimizer.state[parameter] = {
            # On the device, as torch's fused optimizers want it; of half precision it would count to 256 alone.
            "step": parameter.new_zeros((), dtype=torch.float32),
            **{moment: torch.zeros_like(parameter) for moment in MOMENTS},
        }


def at_batch(config: OptimizerConfig, global_batch: int) -> OptimizerConfig:
    """Return the optimizer with the learning rate that it has for this global batch."""
    if not config.reference_batch:
        return config
    peak = config.learning_rate * global_batch / config.reference_batch
    return replace(config, learning_rate=peak, reference_batch=0)
