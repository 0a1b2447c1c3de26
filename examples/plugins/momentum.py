"""An optimizer: gradient descent with momentum. Named by `plugins: [momentum.py]` and `optimizer: {name: momentum}`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from perceiver_trainer import RunOptimizer


@dataclass(frozen=True)
class Momentum(RunOptimizer):
    """PyTorch's SGD: one number beside each weight, under the name momentum_buffer in a checkpoint."""

    name: ClassVar[str] = "momentum"
    elementwise: ClassVar[bool] = True
    numbers_per_weight: ClassVar[int] = 1
    momentum: float = 0.9

    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return SGD over the groups; their weight decay is added to the gradient."""
        return torch.optim.SGD(groups, lr=learning_rate, momentum=self.momentum)
