"""Muon for the weights of linear layers, AdamW for all other parameters, as one optimizer.

Muon makes the momentum of a matrix orthogonal, for which it needs all of the matrix: ZeRO 1 to 3 cut it. PyTorch's Muon
takes matrices alone. Biases, norms, latents, tables of positions and convolutions are AdamW's, as its authors advise.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon and AdamW over groups that are split between them; both keep their state here."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], network: nn.Module, *, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        """ValueError where the network has no linear layer that is trained."""
        linear = {layer.weight for layer in network.modules() if isinstance(layer, nn.Linear)}
        split: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for group in groups:
            for is_matrix, found in split.items():
                members = [parameter for parameter in group["params"] if (parameter in linear) == is_matrix]
                found.extend([{**group, "params": members}] if members else [])
        if not split[True]:
            raise ValueError("optimizer.name = muon: the network has no linear layer that is trained; take adamw")
        # Of the RMS of AdamW's updates: one learning rate and one weight decay serve both.
        matrices = torch.optim.Muon(split[True], lr=lr, adjust_lr_fn="match_rms_adamw")
        parts: list[torch.optim.Optimizer] = [matrices]
        if split[False]:
            parts.append(torch.optim.AdamW(split[False], lr=lr, betas=betas, eps=eps))
        super().__init__([group for part in parts for group in part.param_groups], {})
        # Groups and state are the same objects here and there.
        for part in parts:
            part.state = self.state
        self._parts = parts

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody passes a closure
        """Update every parameter that has a gradient."""
        assert closure is None
        for part in self._parts:
            part.step()
