"""The norms of a layer: of the residual stream, of what is read, and of the queries and keys of each head.

layer   mean 0 and deviation 1, then scale and offset       (x - mean) / sqrt(variance + e) * scale + offset
rms     root mean square 1, then scale (arXiv 1910.07467)   x / sqrt(mean square + e) * scale
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from model.attention.absorbed.token_sources import EPSILON
from model.attention.alignment import widened
from model.config.attention import NormKind, ResidualDtype


def normalised(tokens: Float[Tensor, "*S C"], kind: NormKind = "layer") -> Float[Tensor, "*S C"]:
    """Return the tokens as a norm has them before its scale and offset."""
    if kind == "rms":
        return functional.rms_norm(tokens, tokens.shape[-1:], eps=EPSILON)
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


class RmsNorm(nn.RMSNorm):
    """RMSNorm, also of a residual stream in half precision: its sums are in fp32, its result is as narrow."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised values, in their own precision."""
        with torch.autocast(x.device.type, enabled=False):
            return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class HeadNorm(nn.RMSNorm):
    """RMSNorm of each head's queries or keys, which may have zeros after their channels; the heads share a scale."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPSILON)

    def forward(self, x: Float[Tensor, "*S c"]) -> Float[Tensor, "*S c"]:
        """Return the normalised heads, in their own precision."""
        own, width = self.weight.shape[0], x.shape[-1]
        # The mean is taken over the zeros, too: this makes it that of the channels.
        share = own / width
        weight = widened(self.weight, width) * share**0.5
        with torch.autocast(x.device.type, enabled=False):
            return functional.rms_norm(x, (width,), weight.to(x.dtype), EPSILON * share)


def norm_of(kind: NormKind, residual_dtype: ResidualDtype) -> type[nn.LayerNorm] | type[RmsNorm]:
    """Return the kind of norm that reads a residual stream."""
    if kind == "rms":
        return RmsNorm
    return ResidualNorm if residual_dtype == "bf16" else nn.LayerNorm


def token_norm(kind: NormKind, width: int) -> nn.LayerNorm | RmsNorm:
    """Return the scale and offset of tokens that are normalised already."""
    return RmsNorm(width) if kind == "rms" else nn.LayerNorm(width)
