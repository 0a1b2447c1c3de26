"""The norms of a layer: of the residual stream, and of what is read, which is scaled by each layer by itself."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from model.attention.absorbed.token_sources import EPSILON
from model.config.attention import ResidualDtype


def normalised(tokens: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
    """Return the tokens with mean 0 and deviation 1: LayerNorm before its scale and offset."""
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=EPSILON)


class ResidualNorm(nn.LayerNorm):
    """LayerNorm of a residual stream that may be in half precision: its sums are in fp32, its result is as narrow.

    Autocast would widen the stream for it, and keep that copy for the backward pass.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # PyTorch's name
        """Return the normalised values, in their own precision."""
        if input.dtype == self.weight.dtype:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
            return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def norm_of(residual_dtype: ResidualDtype) -> type[nn.LayerNorm]:
    """Return the kind of norm that reads a residual stream."""
    return ResidualNorm if residual_dtype == "bf16" else nn.LayerNorm
