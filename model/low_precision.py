"""Attention in bfloat16 on a CPU: matrix products in bfloat16, scores computed again in the backward pass.

PyTorch's fused CPU kernel multiplies bfloat16 in float32, three to eleven times slower; eager attention would keep the
shares of every layer.

    B samples, H heads, N queries, M keys, K channels of a head's queries and keys, V of its values
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def low_precision_attention(
    q: Float[Tensor, "B H N K"],
    k: Float[Tensor, "B H M K"],
    v: Float[Tensor, "B H M V"],
    mask: Bool[Tensor, "..."] | None,
) -> Float[Tensor, "B H N V"]:
    """Return softmax(q kᵀ / sqrt(K)) v where the mask is true."""
    out: Tensor = _Attention.apply(q, k, v, mask)  # type: ignore[no-untyped-call]
    return out


def _shares(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.mT)
    return (scores if mask is None else scores.masked_fill_(~mask, -torch.inf)).softmax(dim=-1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(q, k, v, mask)
        return _shares(q, k, mask) @ v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q, k, v, mask = ctx.saved_tensors
        shares = _shares(q, k, mask)
        grad_scores = torch.ops.aten._softmax_backward_data(grad @ v.mT, shares, -1, shares.dtype)
        grad_scores.mul_(q.shape[-1] ** -0.5)
        return grad_scores @ k, grad_scores.mT @ q, shares.mT @ grad, None
