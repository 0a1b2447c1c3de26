"""Widths that GPU kernels support: zero channels pad to a multiple of eight and change no result.

Fused attention refuses heads of another width or copies them, and rows of a matrix that do not begin at a multiple of
16 bytes keep its products from the fastest instructions. It is weights that are widened, inside the product that makes
an array of activations: it comes out wide. On a CPU nothing is widened.

S places, C channels, H heads, c channels of a head
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from model.parameters import Linear

# 16 bytes of bfloat16, and 32 of float32.
ALIGNMENT = 8


def aligned_width(width: int, device: torch.device) -> int:
    """Return the channels that an array of this width has on a device: the next multiple of eight; on a CPU its own."""
    return width if device.type == "cpu" else -(-width // ALIGNMENT) * ALIGNMENT


def widened(values: Float[Tensor, "*S C"], width: int) -> Float[Tensor, "*S _"]:
    """Return the values with zeros after their channels, up to a width; themselves where they have it."""
    beyond = width - values.shape[-1]
    return functional.pad(values, (0, beyond)) if beyond else values


def aligned(values: Float[Tensor, "*S C"]) -> Float[Tensor, "*S _"]:
    """Return the values as products on a device want them: in autocast's precision and of an aligned width.

    The cast and the zeros are one pass over the values. On a CPU they are returned as they are.
    """
    device = values.device.type
    if device == "cpu":
        return values
    is_cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    is_cast = is_cast and values.dtype == torch.float32
    dtype = torch.get_autocast_dtype(device) if is_cast else values.dtype
    width = aligned_width(values.shape[-1], values.device)
    if width == values.shape[-1]:
        return values.to(dtype)
    out: Tensor = _Aligned.apply(values, width, dtype)  # type: ignore[no-untyped-call]
    return out


# By hand: a cast and functional.pad would be two passes over the largest array, and autograd would keep the first.
class _Aligned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, width: int, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
        ctx.width, ctx.dtype = values.shape[-1], values.dtype
        out = values.new_empty(*values.shape[:-1], width, dtype=dtype)
        out[..., : ctx.width].copy_(values)
        out[..., ctx.width :].zero_()
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return grad[..., : ctx.width].to(ctx.dtype), None, None


class ToHeads(Linear):
    """A linear layer whose channels are heads, each of an aligned width where it runs."""

    def __init__(self, in_features: int, out_features: int, num_heads: int, *, has_bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=has_bias)
        self.num_heads = num_heads

    def aligned_rows(self) -> tuple[Float[Tensor, "F C"], Float[Tensor, " F"] | None]:
        """Return the weight and the bias, if any, with rows of zeros after those of each head, if there are any."""
        own = self.out_features // self.num_heads
        width = aligned_width(own, self.weight.device)
        if width == own:
            return self.weight, self.bias
        # After each head and not at the end: heads are contiguous groups of channels, which are cut apart later.
        bias = None if self.bias is None else widened(self.bias.view(self.num_heads, own), width).flatten()
        weight = functional.pad(self.weight.view(self.num_heads, own, -1), (0, 0, 0, width - own)).flatten(0, 1)
        return weight, bias

    def forward(self, values: Float[Tensor, "*S C"]) -> Float[Tensor, "*S F"]:
        """Return the heads side by side; values may have zeros after their channels."""
        weight, bias = self.aligned_rows()
        return functional.linear(values, widened(weight, values.shape[-1]), bias)


class FromHeads(Linear):
    """A linear layer over heads side by side, which may have zeros after their channels."""

    def __init__(self, in_features: int, out_features: int, num_heads: int) -> None:
        super().__init__(in_features, out_features)
        self.num_heads = num_heads

    def forward(self, values: Float[Tensor, "*S C"]) -> Float[Tensor, "*S F"]:
        """Return the product with the heads joined."""
        if values.shape[-1] == self.in_features:
            return functional.linear(values, self.weight, self.bias)
        weight = self.weight.view(len(self.weight), self.num_heads, -1)
        return functional.linear(values, widened(weight, values.shape[-1] // self.num_heads).flatten(1), self.bias)
