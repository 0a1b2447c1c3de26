"""Attention of one head whose keys and values are the tokens themselves, tile by tile.

No array of queries by tokens is kept: the forward pass keeps the logarithm of each query's sum of exponentials, the
backward pass computes the tiles again, and computes nothing for tokens that need no gradient. A tile is written where
the one before it was: fresh arrays come from the operating system page by page, which took as long as the rest.

    for each tile of T tokens:     s       = scores of the tile                     (N, T), over the last tile's
                                   top'    = max(top, max(s))                       highest score so far
                                   total   = total * 2^(top - top') + sum 2^(s - top')
                                   sums    = sums * 2^(top - top') + 2^(s - top') tokens
    after the last:                out     = sums / total
                                   log_sum = top + log2(total)                      all that the backward pass needs

    B samples, N queries, M tokens, C channels, T tokens of a tile
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from math import e, log2, prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.attention.absorbed.grid_support import missing, spilled
from model.attention.absorbed.token_sources import DenseTokens, SeparableTokens, TokenSource
from model.attention.caches import tile_elements

# Scores are taken to this base, in which CPUs exponentiate three times faster.
LOG2_E = log2(e)
# Elements of a tile of scores on a CPU, as many as stay in its cache.
CPU_TILE_ELEMENTS = 2**19
# For exactness, not for speed: the kernels have no instructions for it.
_UNKNOWN_TO_DEVICES = (torch.float64,)
# Below every score, and finite: where a tile is all masked, so that no score is above -inf, no -inf is taken from -inf.
MASKED = -1e30


@torch.compiler.disable  # type: ignore[untyped-decorator]  # tiles are as few operations as they can be already
def read_tokens(
    queries_BNC: Float[Tensor, "B N C"],
    source: TokenSource,
    valid_BM: Bool[Tensor, "B M"] | None = None,
    values_BMC: Float[Tensor, "B M C"] | None = None,
) -> Float[Tensor, "B N C"]:
    """Return softmax(queries tokensᵀ) tokens over the valid tokens.

    `values_BMC` are the source's tokens where they need a gradient. A sample with no valid token reads all of them.
    """
    if valid_BM is not None:
        # Without a token softmax is 0/0, which no later product with 0 mends.
        valid_BM = valid_BM | ~valid_BM.any(dim=1, keepdim=True)
    # Autocast would round scores in the forward pass alone: what the tokens are held in decides for both passes.
    with _without_autocast(queries_BNC.device.type):
        if isinstance(source, SeparableTokens) and _has_kernel(queries_BNC.device, source.dtype):
            sizes = source.content_BcM.shape[1], queries_BNC.shape[1]
            if spilled(queries_BNC.device, *sizes) is None:
                from model.attention.absorbed.grid_read import read_grid

                return read_grid(queries_BNC, source, valid_BM)
        if isinstance(source, DenseTokens):
            queries_BNC = queries_BNC.to(source.dtype)
        out: Tensor = _Read.apply(queries_BNC, values_BMC, source, valid_BM)  # type: ignore[no-untyped-call]
    return out


def _without_autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _has_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a kernel can read separable tokens there, if Triton compiles it as it should."""
    return dtype == torch.float32 and _has_triton(device)


def _has_triton(device: torch.device) -> bool:
    """Whether Triton runs there: it comes with PyTorch for CUDA, not with that for CPUs."""
    is_gpu = device.type == "cuda" and torch.version.cuda is not None and torch.cuda.is_available()
    return is_gpu and missing(device) is None


def _tiles(source: TokenSource, queries: Tensor) -> Iterator[tuple[slice, list[slice], Tensor]]:
    """Groups of samples, the tiles of their tokens, and two arrays for the scores of any of these tiles."""
    is_cpu = queries.device.type == "cpu"
    elements = CPU_TILE_ELEMENTS if is_cpu else tile_elements(queries.device, source.dtype)
    num_queries = queries.shape[1]
    rows = max(1, elements // (num_queries * source.row))
    if source.row > 1:
        # An odd number of them: where rows of scores lie whole pages apart, products of few channels take four times
        # as long.
        rows |= 1
    length = min(rows * source.row, source.num_tokens)
    # Small inputs do not fill a tile alone: then several samples are multiplied by one call.
    group = min(source.num_samples, max(1, elements // (num_queries * length)))
    tokens = [slice(start, min(start + length, source.num_tokens)) for start in range(0, source.num_tokens, length)]
    scratch = torch.empty(2, group * num_queries * length, dtype=source.dtype, device=queries.device)
    for start in range(0, source.num_samples, group):
        yield slice(start, min(start + group, source.num_samples)), tokens, scratch


def _scores(
    source: TokenSource, samples: slice, tokens: slice, vectors: tuple[Tensor, ...], scratch: Tensor
) -> Float[Tensor, "b N T"]:
    """The products of the vectors with the tokens, written over what was in the scratch."""
    shape = (samples.stop - samples.start, vectors[0].shape[1], tokens.stop - tokens.start)
    return source.scores(samples, tokens, vectors, scratch[: prod(shape)].view(shape))


def _part(valid_BM: Tensor | None, samples: slice, tokens: slice) -> Bool[Tensor, "b T"] | None:
    return None if valid_BM is None else valid_BM[samples, tokens]


def _steps(source: TokenSource, device: torch.device) -> tuple[Callable[..., Tensor], Callable[..., None]]:
    """What is done to the scores of a tile in the forward and in the backward pass."""
    if source.dtype in _UNKNOWN_TO_DEVICES or not _has_triton(device):
        return _to_shares, _to_gradients
    from model.attention.absorbed.tile_kernel import to_gradients, to_shares

    return to_shares, to_gradients


def _to_shares(scores: Tensor, top: Tensor, total: Tensor, valid: Tensor | None) -> Tensor:
    """Do what tile_kernel.to_shares does, by operations of PyTorch."""
    if valid is not None:
        scores.masked_fill_(~valid[:, None], -torch.inf)
    higher = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
    rescale = (top - higher).exp2_()
    shares = scores.sub_(higher).exp2_()
    total.mul_(rescale).add_(shares.sum(dim=-1, keepdim=True, dtype=total.dtype))
    top.copy_(higher)
    return rescale


def _to_gradients(scores: Tensor, products: Tensor, log_sums: Tensor, offsets: Tensor, valid: Tensor | None) -> None:
    """Do what tile_kernel.to_gradients does, by operations of PyTorch."""
    if valid is not None:
        scores.masked_fill_(~valid[:, None], -torch.inf)
    shares = scores.sub_(log_sums).exp2_()
    products.sub_(offsets).mul_(shares)


def _write_gradients(out: Tensor, grad_scores: Tensor, queries: Tensor, shares: Tensor, grad: Tensor) -> None:
    """Write the gradients of some tokens, in which scores and shares each have a part."""
    if out.device.type == "cpu":
        out.copy_(grad_scores.mT @ queries + shares.mT @ grad)
    else:
        _write_sum(out, (grad_scores.mT, queries), (shares.mT, grad))


def _write_sum(out: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
    """Write the sum of two products: a GPU adds to what is there while it writes, two passes in place of five."""
    torch.bmm(*first, out=out)
    torch.baddbmm(out, *second, out=out)


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
        # At least fp32: a rounding error of this number is a factor on all shares of a query.
        log_sums_BN = out_BNC.new_empty(queries_BNC.shape[:2], dtype=torch.promote_types(out_BNC.dtype, torch.float32))
        to_shares, _ = _steps(source, queries_BNC.device)
        for samples, tiles, (scratch, _) in _tiles(source, queries_BNC):
            asked = source.prepared(queries_BNC[samples] * LOG2_E)
            top = log_sums_BN.new_full(log_sums_BN[samples].shape, MASKED)[..., None]
            total, sums = torch.zeros_like(top), source.sums(asked)
            for tokens in tiles:
                shares = _scores(source, samples, tokens, asked, scratch)
                rescale = to_shares(shares, top, total, _part(valid_BM, samples, tokens))
                source.add(sums.mul_(rescale), samples, tokens, shares)
            out_BNC[samples] = source.mixed(sums) / total
            log_sums_BN[samples] = (top + total.log2())[..., 0]
        ctx.source, ctx.valid_BM = source, valid_BM
        ctx.save_for_backward(queries_BNC, values_BMC, out_BNC, log_sums_BN)
        return out_BNC

    @staticmethod
    def backward(ctx: Any, grad_BNC: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        queries_BNC, values_BMC, out_BNC, log_sums_BN = ctx.saved_tensors
        source, valid_BM = ctx.source, ctx.valid_BM
        grad_queries = torch.empty_like(queries_BNC)
        grad_values = torch.empty_like(values_BMC) if ctx.needs_input_grad[1] else None
        # As in FlashAttention: softmax's gradient needs the sum over all tokens of share times gradient, which is this
        # product and needs no tile.
        offset_BN1 = (grad_BNC * out_BNC).sum(dim=-1, keepdim=True, dtype=log_sums_BN.dtype)
        _, to_gradients = _steps(source, queries_BNC.device)
        for samples, tiles, (scratch, other_scratch) in _tiles(source, queries_BNC):
            queries, grad = queries_BNC[samples], grad_BNC[samples]
            # To base 2 only what is exponentiated: the shares are those of any base, and so is everything that follows
            # from them.
            asked, wanted = source.prepared(queries * LOG2_E), source.prepared(grad)
            sums = source.sums(asked)
            for tokens in tiles:
                shares = _scores(source, samples, tokens, asked, scratch)
                grad_scores = _scores(source, samples, tokens, wanted, other_scratch)
                valid = _part(valid_BM, samples, tokens)
                to_gradients(shares, grad_scores, log_sums_BN[samples, :, None], offset_BN1[samples], valid)
                if grad_values is not None:
                    _write_gradients(grad_values[samples, tokens], grad_scores, queries, shares, grad)
                source.add(sums, samples, tokens, grad_scores)
            grad_queries[samples] = source.mixed(sums)
        return grad_queries, grad_values, None, None
