"""LAMB as DeepMind trained the Perceivers with, exact also where a tensor is cut over several ranks.

You et al., "Large Batch Optimization for Deep Learning" (2020), as in the papers' released code: the bias-corrected
Adam direction u, epsilon outside the root, plus the weight decay; times |p| / |u| of each tensor, not clamped, 1 where
either norm is 0; times the learning rate.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """The part of one network parameter that lies in a tensor that is optimized."""

    parameter: int
    """Number of the parameter, the same on all ranks."""
    start: int
    """First element in the flattened tensor."""
    numel: int
    """Its length."""


class Lamb(torch.optim.Optimizer):
    """LAMB over tensors that may hold several parameters, or parts of some; `bind` says which."""

    def __init__(self, params: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._segments: Mapping[Tensor, list[Segment]] = {}
        self._num_parameters = 0
        self._sum: Callable[[Tensor], Tensor] = torch.Tensor.clone

    def bind(
        self, segments: Mapping[Tensor, list[Segment]], num_parameters: int, sum_over_ranks: Callable[[Tensor], Tensor]
    ) -> None:
        """Say which parameters the tensors hold and how parts of a norm on several ranks are added."""
        self._segments, self._num_parameters, self._sum = segments, num_parameters, sum_over_ranks

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody passes a closure
        """Update every tensor that has a gradient. Collective: one small sum a group."""
        assert closure is None
        for group in self.param_groups:
            directions = {p: self._direction(p, group) for p in group["params"] if p.grad is not None}
            if not directions:
                continue
            squares = torch.zeros(2, self._num_parameters, dtype=torch.float64, device=group["params"][0].device)
            for tensor, direction in directions.items():
                for segment in self._segments[tensor]:
                    squares[0, segment.parameter] += _square(tensor, segment)
                    squares[1, segment.parameter] += _square(direction, segment)
            norms = self._sum(squares).sqrt()
            ratios = torch.where((norms > 0).all(dim=0), norms[0] / norms[1], 1.0).to(torch.float32)
            for tensor, direction in directions.items():
                for segment in self._segments[tensor]:
                    _part(tensor, segment).sub_(_part(direction, segment) * (group["lr"] * ratios[segment.parameter]))

    def _direction(self, tensor: Tensor, group: dict[str, Any]) -> Tensor:
        """Advance the moments and return the direction, weight decay included."""
        state = self.state[tensor]
        beta1, beta2 = group["betas"]
        gradient: Tensor = tensor.grad  # type: ignore[assignment]  # the caller looked
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        first = state["exp_avg"] / (1 - beta1 ** state["step"])
        root: Tensor = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt()
        direction: Tensor = first / root.add_(group["eps"])
        return direction.add_(tensor, alpha=group["weight_decay"])


def _part(tensor: Tensor, segment: Segment) -> Tensor:
    return tensor.view(-1).narrow(0, segment.start, segment.numel)


def _square(tensor: Tensor, segment: Segment) -> Tensor:
    return _part(tensor, segment).double().square().sum()
