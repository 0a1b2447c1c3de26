"""Attention on a GPU with heads too wide for flash attention: products of large tiles with softmax between them.

What PyTorch takes for them keeps the sums of values in memory and has no matrix instructions of the newer GPUs. Here
some queries meet all keys at once: their scores stay in the device's cache between two products, and the backward pass
computes them again. Nothing is added in another order the next time: the same inputs give the same bits.

    G heads of samples, N queries, M keys, K channels of queries and keys, V of values
    g heads and n queries of a tile
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from model.attention.caches import tile_elements


# Operations with names, and not an autograd.Function: `selective` keeps their results by the name
# (model/training/recomputation.py), and a compiled layer calls them without a look at the tiles.
@torch.library.custom_op(
    "perceiver::wide_attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? hidden, float scale) -> Tensor",
)
def wide_attention(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
    """Return softmax(scale q kᵀ) v, (G, N, V), for q (G, N, K), k (G, M, K), v (G, M, V) and hidden (G, 1 or N, M)."""
    out = q.new_empty(*q.shape[:2], v.shape[-1])
    for heads, queries, _, shares in _tiles(q, k, hidden, scale):
        torch.bmm(shares, v[heads], out=out[heads, queries])
    return out


@torch.library.custom_op(
    "perceiver::wide_attention_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? hidden, float scale) -> (Tensor, Tensor, Tensor)",
)
def wide_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    grad_q, grad_k, grad_v = (part.new_empty(part.shape) for part in (q, k, v))
    sums: tuple[Tensor, Tensor] | None = None
    for heads, queries, scratch, shares in _tiles(q, k, hidden, scale):
        asked, wanted = q[heads, queries], grad[heads, queries]
        of_values = shares.mT @ wanted
        torch.bmm(wanted, v[heads].mT, out=scratch)
        torch.ops.aten._softmax_backward_data.out(scratch, shares, -1, shares.dtype, grad_input=scratch)
        torch.baddbmm(asked, scratch, k[heads], beta=0, alpha=scale, out=grad_q[heads, queries])
        of_keys = scratch.mT @ asked
        if queries.start:
            assert sums is not None
            sums[0].add_(of_keys)
            sums[1].add_(of_values)
        else:
            # In float32 at the least: tiles are many.
            sums = _summed(of_keys), _summed(of_values)
        # Only after the last tile of these heads: sums are rounded to half precision once, not tile by tile.
        if queries.stop == q.shape[1]:
            torch.mul(sums[0], scale, out=sums[0])
            grad_k[heads], grad_v[heads] = sums
    return grad_q, grad_k, grad_v


def _summed(part: Tensor) -> Tensor:
    return part.to(torch.promote_types(part.dtype, torch.float32))


def _tiles(q: Tensor, k: Tensor, hidden: Tensor | None, scale: float) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Some heads, some of their queries, an array as large as their scores to write to, and the shares of all keys.

    All queries of a head come before the next head's.
    """
    (num_heads, N, _), M = q.shape, k.shape[1]
    elements = tile_elements(q.device, q.dtype)
    num_parts = -(-N // max(1, min(N, elements // M)))
    # Parts of one size: a short last one would be a product too small for a GPU.
    rows = -(-N // num_parts)
    at_once = 1 if rows < N else max(1, min(num_heads, elements // (N * M)))
    all_scores, all_shares = q.new_empty(2, at_once, rows, M)
    for first_head in range(0, num_heads, at_once):
        heads = slice(first_head, min(first_head + at_once, num_heads))
        for first in range(0, N, rows):
            queries = slice(first, min(first + rows, N))
            part = slice(heads.stop - heads.start), slice(queries.stop - queries.start)
            scores, shares = all_scores[part], all_shares[part]
            torch.baddbmm(scores, q[heads, queries], k[heads].mT, beta=0, alpha=scale, out=scores)
            if hidden is not None:
                scores.masked_fill_(hidden[heads, queries] if hidden.shape[1] > 1 else hidden[heads], -torch.inf)
            torch.ops.aten._softmax.out(scores, -1, False, out=shares)
            yield heads, queries, scores, shares


@wide_attention.register_fake
def _(q: Tensor, _k: Tensor, v: Tensor, _hidden: Tensor | None, _scale: float) -> Tensor:
    return q.new_empty(*q.shape[:2], v.shape[-1])


@wide_attention_backward.register_fake
def _(
    _grad: Tensor, q: Tensor, k: Tensor, v: Tensor, _hidden: Tensor | None, _scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001
    q, k, v, hidden, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, hidden)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    q, k, v, hidden = ctx.saved_tensors
    return *wide_attention_backward(grad.contiguous(), q, k, v, hidden, ctx.scale), None, None


wide_attention.register_autograd(_backward, setup_context=_keep)
