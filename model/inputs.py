"""How modalities become one array of tokens, and which of its tokens are valid.

B samples, M tokens of all modalities, C channels of the joined tokens
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.adapters import adapter
from model.config import PerceiverConfig
from model.config_inputs import AnyInput
from model.parameters import Table


@dataclass(frozen=True)
class Tokens:
    """The byte array of the paper."""

    values: Float[Tensor, "B M C"]
    """Tokens of all modalities, in the order of their names."""
    valid: Bool[Tensor, "B M"] | None
    """Which tokens are there; None means all."""


def valid_tokens(config: AnyInput, num_tokens: int, lengths_B: Int[Tensor, " B"]) -> Bool[Tensor, "B M"]:
    """Return which tokens of a modality hold at least one of the first `lengths` entries along its first axis."""
    rows = config.grid[0]
    tokens_per_row = config.num_tokens // rows
    starts = torch.arange(num_tokens, device=lengths_B.device) // tokens_per_row * config.entries_per_row
    return starts < lengths_B[:, None]


class Inputs(nn.Module):
    """The adapters, and the learned vectors that pad their tokens to a common width."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.modalities = config.inputs.chosen()
        self.adapters = nn.ModuleDict({name: adapter(modality) for name, modality in self.modalities.items()})
        missing = {name: config.token_width - modality.token_width for name, modality in self.modalities.items()}
        self.paddings = nn.ModuleDict({name: Table(1, width) for name, width in missing.items() if width})

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor] | None, dtype: torch.dtype) -> Tokens:
        """Return the tokens of all modalities; `lengths` counts the valid entries of each along its first axis."""
        values = [self._padded(name, adapt(inputs[name], dtype)) for name, adapt in self.adapters.items()]
        joined_BMC = values[0] if len(values) == 1 else torch.cat(values, dim=1)
        if lengths is None:
            return Tokens(joined_BMC, None)
        valid = [
            valid_tokens(modality, tokens.shape[1], lengths[name])
            for (name, modality), tokens in zip(self.modalities.items(), values, strict=True)
        ]
        return Tokens(joined_BMC, torch.cat(valid, dim=1))

    def _padded(self, name: str, tokens_BMC: Tensor) -> Tensor:
        """The learned vector also tells the latents which modality a token is from."""
        if name not in self.paddings:
            return tokens_BMC
        padding = self.paddings[name]
        assert isinstance(padding, Table)
        return torch.cat([tokens_BMC, padding.weight.expand(*tokens_BMC.shape[:2], -1)], dim=-1)
