"""Optimizers, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig
from trainer.ema_config import EmaConfig
from trainer.optim.groups import parameter_groups
from trainer.optim.lamb import Lamb

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of the two moments in the state of every optimizer here, and in a checkpoint."""


def make(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer over the parameter groups of a network."""
    groups = parameter_groups(network, config)
    betas = (config.beta1, config.beta2)
    if config.name == "lamb":
        return Lamb(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon)
    # torch's, not DeepSpeed's: its kernel for the CPU multiplies beta^t up step by step and takes a power after a load,
    # so that resumed weights differed by up to 5e-5. Fused: it reads on the device whether to skip the step.
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)


def num_beside(ema: EmaConfig) -> int:
    """Return how many numbers are kept beside each weight: two moments, and the moving average where there is one."""
    return len(MOMENTS) + (ema.decay > 0)


def zero_state(parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer the state that it would make at its first step, so that one can be saved or loaded before."""
    for parameter in parameters:
        optimizer.state[parameter] = {
            # A tensor on the device, as torch's fused optimizers want it.
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            **{moment: torch.zeros_like(parameter, memory_format=torch.preserve_format) for moment in MOMENTS},
        }


def at_batch(config: OptimizerConfig, global_batch: int) -> OptimizerConfig:
    """Return the optimizer with the learning rate that it has for this global batch."""
    if not config.reference_batch:
        return config
    peak = config.learning_rate * global_batch / config.reference_batch
    return replace(config, learning_rate=peak, reference_batch=0)


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Return the rate of the step after `step` done ones, of `total_steps`.

    Warm-up: peak * (step + 1) / warmup_steps. Then, with p the share of the way from the end of the warm-up (or of
    the flat part) to the last step:
      cosine, flat_cosine   peak * (f + (1 - f) * (1 + cos(pi p)) / 2), f the final fraction
      step                  peak * decay_factor ** (number of decay_steps passed)
      constant              peak
      stable_decay          peak, and over the last cooldown_steps linearly to peak * f (warm-up, stable, decay)
    """
    peak = config.learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return peak
    if config.schedule == "step":
        return peak * config.decay_factor ** sum(step >= decay for decay in config.decay_steps)
    floor = config.final_fraction
    if config.schedule == "stable_decay":
        return peak * (floor + (1 - floor) * min(max(total_steps - step, 0) / config.cooldown_steps, 1.0))
    start = config.warmup_steps
    if config.schedule == "flat_cosine":
        start = max(start, config.flat_steps)
    share = min(max(step - start, 0) / max(total_steps - start, 1), 1.0)
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2)
