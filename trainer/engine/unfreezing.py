"""Unfreezing: parameters that are trained from a later step on are constants until then, whatever the ZeRO stage.

Until its first step a parameter asks for no gradient: the backward pass leaves it out, and ZeRO's parts of it are
zeros, in the gradient and in its norm. Its learning rate is 0, so that neither decay nor LAMB's ratio moves it, and the
steps that Adam's bias correction counts are taken back. Its moments therefore are what they would be had it joined at
that step. All of this is a function of the step, and a resume needs nothing but the counts.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Unfreezing:
    """The parameter groups of an optimizer, those that are trained later among them."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        """To be made before DeepSpeed takes the optimizer, whose groups have the network's own parameters till then."""
        self._inner = inner
        self._late: dict[int, list[nn.Parameter]] = {}
        for group in inner.param_groups:
            if group["first_step"]:
                self._late.setdefault(group["first_step"], []).extend(group["params"])

    @property
    def first_steps(self) -> Collection[int]:
        """The steps from which on something more is trained."""
        return self._late.keys()

    def prepare(self, step: int, rate: float) -> None:
        """Make the parameters what they are in the step after so many, whose learning rate this is."""
        for first, parameters in self._late.items():
            for parameter in parameters:
                parameter.requires_grad_(first <= step)
        for group in self._inner.param_groups:
            group["lr"] = rate * group["rate_factor"] if group["first_step"] <= step else 0.0

    def settle(self, step: int, by_group: Callable[[], Sequence[Sequence[Tensor]]]) -> None:
        """Take back the step that those were counted that it did not train."""
        if not any(first > step for first in self._late):
            return
        state: Any = self._inner.state
        for group, parts in zip(self._inner.param_groups, by_group(), strict=True):
            if group["first_step"] > step:
                for part in parts:
                    # To 0: before its first step nothing of it was applied, however often the optimizer has counted.
                    state[part]["step"].zero_()
