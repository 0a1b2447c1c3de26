"""LAMB in plain PyTorch, to hold the trainer's against."""

import torch

from trainer.config import OptimizerConfig


class PlainLamb(torch.optim.Optimizer):
    """LAMB written tensor by tensor, straight from its formulas, in a way that shares nothing with the trainer's."""

    def __init__(self, groups: list[dict], config: OptimizerConfig) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.config = config

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                t = state["t"] = state.get("t", 0) + 1
                m = state["m"] = self.config.beta1 * state.get("m", 0) + (1 - self.config.beta1) * p.grad
                v = state["v"] = self.config.beta2 * state.get("v", 0) + (1 - self.config.beta2) * p.grad**2
                root = (v / (1 - self.config.beta2**t)).sqrt() + self.config.epsilon
                u = m / (1 - self.config.beta1**t) / root + group["weight_decay"] * p
                ratio = p.norm() / u.norm() if p.norm() > 0 and u.norm() > 0 else 1.0
                p -= group["lr"] * ratio * u
