"""Attention on a CPU where PyTorch has no good kernel: in bfloat16, and with values wider than keys.

Its fused kernel multiplies bfloat16 in float32, three to eleven times slower, and refuses heads of two widths; what it
does instead keeps the shares of every layer. Here they are computed again in the backward pass, and heads take turns
in two arrays that stay in the processor's cache: fresh arrays of all heads come from the operating system page by page,
which was a fifth of a layer's time.

    B samples, H heads, G heads of samples (B H), N queries, M keys, K channels of queries and keys, V of values
    b: B or 1, n: N or 1
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Scores that are held at once; never less than one head's.
TILE_ELEMENTS = 2**19


def cpu_attention(
    q: Float[Tensor, "B H N K"],
    k: Float[Tensor, "B H M K"],
    v: Float[Tensor, "B H M V"],
    valid_bnM: Bool[Tensor, "b n M"] | None,
    scale: float | None = None,
) -> Float[Tensor, "B H N V"]:
    """Return softmax(scale q kᵀ) v, by default 1 / sqrt(K), over the valid keys, of which every query has one.

    `valid_bnM` has one row where all queries see the same keys, and is of one sample where all samples do.
    """
    scale = scale or q.shape[-1] ** -0.5
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        # A compiler cannot look into the tiles; it fuses what is around the products, and computes again what is cheap.
        scores = torch.matmul((q * scale).contiguous(), k.contiguous().mT)
        seen = scores if valid_bnM is None else scores.masked_fill(~valid_bnM[:, None], -torch.inf)
        return torch.matmul(seen.softmax(dim=-1), v.contiguous())
    num_samples, num_heads = q.shape[:2]
    hidden = None if valid_bnM is None else hidden_of_heads(valid_bnM, num_samples, num_heads)
    # The scale is multiplied outside of the function, so that autograd takes care of its gradient.
    scaled, keys, values = (part.flatten(0, 1) for part in (q * scale, k, v))
    out: Tensor = _Attention.apply(scaled, keys, values, hidden)  # type: ignore[no-untyped-call]
    return out.view(num_samples, num_heads, *out.shape[1:])


def hidden_of_heads(valid_bnM: Bool[Tensor, "b n M"], num_samples: int, num_heads: int) -> Bool[Tensor, "G n M"]:
    """Return which keys are hidden from the queries of each head of each sample."""
    return ~valid_bnM.expand(num_samples, -1, -1).repeat_interleave(num_heads, dim=0)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:  # noqa: ANN401
        q, k, v = _contiguous(q, k, v)
        ctx.save_for_backward(q, k, v, hidden)
        out = q.new_empty(*q.shape[:2], v.shape[-1])
        for heads, _scratch, shares in _tiles(q, k, hidden):
            torch.bmm(shares, v[heads], out=out[heads])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q, k, v, hidden = ctx.saved_tensors
        grad = grad.contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for heads, scratch, shares in _tiles(q, k, hidden):
            torch.bmm(shares.mT, grad[heads], out=grad_v[heads])
            torch.bmm(grad[heads], v[heads].mT, out=scratch)
            # Its own result as its output: a third array of scores would not fit the cache.
            torch.ops.aten._softmax_backward_data.out(scratch, shares, -1, shares.dtype, grad_input=scratch)
            torch.bmm(scratch, k[heads], out=grad_q[heads])
            torch.bmm(scratch.mT, q[heads], out=grad_k[heads])
        return grad_q, grad_k, grad_v, None


def _contiguous(*parts: Tensor) -> tuple[Tensor, ...]:
    """Copies of the parts that have their heads one after the other.

    Products would copy heads that lie side by side, and transpose the copies, each time. The copies share one array:
    arrays of their own leave holes in the heap, which are 4 % of a step's memory.
    """
    array = parts[0].new_empty(sum(part.numel() for part in parts))
    places = torch.split(array, [part.numel() for part in parts])
    return tuple(place.view(part.shape).copy_(part) for place, part in zip(places, parts, strict=True))


def _tiles(q: Tensor, k: Tensor, hidden: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some heads, an array as large as their scores that may be overwritten, and the shares of their keys."""
    (num_heads, N, _), M = q.shape, k.shape[1]
    at_once = min(num_heads, max(1, TILE_ELEMENTS // (N * M)))
    all_scores, all_shares = q.new_empty(2, at_once, N, M)
    for start in range(0, num_heads, at_once):
        heads = slice(start, min(start + at_once, num_heads))
        scores, shares = all_scores[: heads.stop - start], all_shares[: heads.stop - start]
        torch.bmm(q[heads], k[heads].mT, out=scores)
        if hidden is not None:
            scores.masked_fill_(hidden[heads], -torch.inf)
        torch.ops.aten._softmax.out(scores, -1, False, out=shares)
        yield heads, scores, shares
