"""Attention of one head whose keys and values are the tokens themselves, tile by tile.

No array of queries by tokens is kept: the forward pass keeps the logarithm of each query's sum of exponentials, the
backward pass computes the tiles again, and computes nothing for tokens that need no gradient.

    B samples, N queries, M tokens, C channels, T tokens of a tile
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.token_sources import TokenSource

# Elements of a tile of scores: on a CPU as many as stay in its cache, on a device as many as keep it busy.
CPU_TILE_ELEMENTS = 2**19
DEVICE_TILE_ELEMENTS = 2**26
# Below every score, and finite: a tile that is all masked must not give 0/0.
MASKED = -1e30


def read_tokens(
    queries_BNC: Float[Tensor, "B N C"],
    source: TokenSource,
    valid_BM: Bool[Tensor, "B M"] | None = None,
    values_BMC: Float[Tensor, "B M C"] | None = None,
) -> Float[Tensor, "B N C"]:
    """Return softmax(queries tokensᵀ) tokens over the valid tokens.

    `values_BMC` are the source's tokens where they need a gradient. A sample with no valid token gets some finite mean.
    """
    out: Tensor = _Read.apply(queries_BNC, values_BMC, source, valid_BM)  # type: ignore[no-untyped-call]
    return out


def _tiles(source: TokenSource, queries: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Groups of samples, and the tiles of their tokens."""
    elements = CPU_TILE_ELEMENTS if queries.device.type == "cpu" else DEVICE_TILE_ELEMENTS
    rows = max(1, elements // (queries.shape[1] * source.row))
    length = min(rows * source.row, source.num_tokens)
    group = max(1, elements // (queries.shape[1] * length))
    tokens = [slice(start, min(start + length, source.num_tokens)) for start in range(0, source.num_tokens, length)]
    for start in range(0, source.num_samples, group):
        yield slice(start, min(start + group, source.num_samples)), tokens


def _scores(
    source: TokenSource, samples: slice, tokens: slice, prepared: tuple[Tensor, ...], valid_BM: Tensor | None
) -> Tensor:
    scores = source.scores(samples, tokens, prepared)
    return scores if valid_BM is None else scores.masked_fill_(~valid_BM[samples, None, tokens], MASKED)


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        queries_BNC: Tensor,
        values_BMC: Tensor | None,
        source: TokenSource,
        valid_BM: Tensor | None,
    ) -> Tensor:
        out_BNC = torch.empty_like(queries_BNC)
        log_sums_BN = out_BNC.new_empty(queries_BNC.shape[:2], dtype=torch.promote_types(out_BNC.dtype, torch.float32))
        for samples, tiles in _tiles(source, queries_BNC):
            prepared = source.prepared(samples, queries_BNC[samples])
            top = log_sums_BN.new_full(log_sums_BN[samples].shape, MASKED)[..., None]
            total, mixed = torch.zeros_like(top), torch.zeros((), dtype=top.dtype, device=top.device)
            for tokens in tiles:
                scores = _scores(source, samples, tokens, prepared, valid_BM)
                higher = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
                rescale = (top - higher).exp_()
                shares = scores.sub_(higher).exp_()
                total = total * rescale + shares.sum(dim=-1, keepdim=True, dtype=total.dtype)
                mixed = mixed * rescale + source.mixed(samples, tokens, shares)
                top = higher
            out_BNC[samples] = mixed / total
            log_sums_BN[samples] = (top + total.log())[..., 0]
        ctx.source, ctx.valid_BM = source, valid_BM
        ctx.save_for_backward(queries_BNC, values_BMC, out_BNC, log_sums_BN)
        return out_BNC

    @staticmethod
    def backward(ctx: Any, grad_BNC: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        queries_BNC, values_BMC, out_BNC, log_sums_BN = ctx.saved_tensors
        source, valid_BM = ctx.source, ctx.valid_BM
        grad_queries = torch.zeros_like(queries_BNC)
        grad_values = torch.empty_like(values_BMC) if ctx.needs_input_grad[1] else None
        offset_BN1 = (grad_BNC * out_BNC).sum(dim=-1, keepdim=True, dtype=log_sums_BN.dtype)
        for samples, tiles in _tiles(source, queries_BNC):
            asked = source.prepared(samples, queries_BNC[samples])
            wanted = source.prepared(samples, grad_BNC[samples])
            for tokens in tiles:
                scores = _scores(source, samples, tokens, asked, valid_BM)
                shares = scores.sub_(log_sums_BN[samples, :, None]).exp_()
                grad_scores = source.scores(samples, tokens, wanted).sub_(offset_BN1[samples]).mul_(shares)
                if grad_values is not None:
                    grad_values[samples, tokens] = grad_scores.mT @ queries_BNC[samples] + shares.mT @ grad_BNC[samples]
                grad_queries[samples] += source.mixed(samples, tokens, grad_scores)
        return grad_queries, grad_values, None, None
