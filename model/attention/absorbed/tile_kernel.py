"""Triton kernels for the work between the matrix products of a tile: one pass over its scores instead of seven.

A program has one query: it goes through the query's scores of the tile twice, the second time from the cache. No two
programs write to the same place: the same inputs give the same bits.

    b samples, N queries, T tokens of a tile
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_TOKENS = 1024
# A line of 1,024 scores is 8 for each of a program's 128 threads.
NUM_WARPS = 4


def to_shares(scores_bNT: Tensor, top_bN1: Tensor, total_bN1: Tensor, valid_bT: Tensor | None) -> Tensor:
    """Write exponentials, to the base 2 and relative to the highest score so far, over the scores.

    The highest scores and the totals of the tiles so far are brought up to date in place. Returns what sums of tokens,
    weighted before, are to be multiplied with, (b, N, 1).
    """
    rescale = torch.empty_like(top_bN1)
    _launch(_to_shares_kernel, scores_bNT, valid_bT, top_bN1, total_bN1, rescale)
    return rescale


def to_gradients(
    scores_bNT: Tensor, products_bNT: Tensor, log_totals_bN1: Tensor, offsets_bN1: Tensor, valid_bT: Tensor | None
) -> None:
    """Write shares over the scores, and the scores' gradients over the products of the output's gradient."""
    _launch(_to_gradients_kernel, scores_bNT, valid_bT, products_bNT, log_totals_bN1.contiguous(), offsets_bN1)


def _launch(kernel: Any, scores: Tensor, valid: Tensor | None, *others: Tensor) -> None:  # noqa: ANN401  # Triton has no types
    num_samples, num_queries, num_tokens = scores.shape
    assert all(array.is_contiguous() for array in (scores, *others))
    # Triton launches on the current device, which need not be that of the scores.
    with torch.cuda.device_of(scores):  # type: ignore[no-untyped-call]
        kernel[num_samples * num_queries,](
            scores,
            valid,
            *others,
            *(num_queries, num_tokens, 0 if valid is None else valid.stride(0)),
            BLOCK_TOKENS=BLOCK_TOKENS,
            num_warps=NUM_WARPS,
        )


@triton.jit
@no_type_check
def _loaded(scores, valid, token, here, kind):
    """Scores of some tokens; those of others, and of tokens that are not valid, are lower than all."""
    # Infinity is safe: the highest score so far, from which it is taken, is never below MASKED.
    loaded = tl.load(scores + token, mask=here, other=-float("inf")).to(kind)
    if valid is not None:
        loaded = tl.where(tl.load(valid + token, mask=here, other=0) != 0, loaded, -float("inf"))
    return loaded


@triton.jit(do_not_specialize=("num_queries", "num_tokens", "valid_stride"))
@no_type_check
# Not specialised, here and below: Triton compiles another version for a number that is 1 or a multiple of 16, and a
# last, shorter tile would wait for the compiler in the middle of a run.
def _to_shares_kernel(
    scores, valid, tops, totals, rescales, num_queries, num_tokens, valid_stride, BLOCK_TOKENS: tl.constexpr
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    scores += query * num_tokens
    if valid is not None:
        valid += query // num_queries * valid_stride
    kind = totals.dtype.element_ty
    top = tl.load(tops + query)
    highest = tl.full([BLOCK_TOKENS], -float("inf"), kind)
    for start in range(0, num_tokens, BLOCK_TOKENS):
        token = start + tl.arange(0, BLOCK_TOKENS)
        highest = tl.maximum(highest, _loaded(scores, valid, token, token < num_tokens, kind))
    higher = tl.maximum(top, tl.max(highest, axis=0))
    sums = tl.full([BLOCK_TOKENS], 0.0, kind)
    for start in range(0, num_tokens, BLOCK_TOKENS):
        token = start + tl.arange(0, BLOCK_TOKENS)
        here = token < num_tokens
        shares = tl.exp2(_loaded(scores, valid, token, here, kind) - higher).to(scores.dtype.element_ty)
        tl.store(scores + token, shares, mask=here)
        # As they are rounded: what tokens are weighted with adds up to 1.
        sums += shares.to(kind)
    rescale = tl.exp2(top - higher)
    tl.store(tops + query, higher)
    tl.store(rescales + query, rescale)
    tl.store(totals + query, tl.load(totals + query) * rescale + tl.sum(sums, axis=0))


@triton.jit(do_not_specialize=("num_queries", "num_tokens", "valid_stride"))
@no_type_check
def _to_gradients_kernel(
    scores, valid, products, log_totals, offsets, num_queries, num_tokens, valid_stride, BLOCK_TOKENS: tl.constexpr
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    scores += query * num_tokens
    products += query * num_tokens
    if valid is not None:
        valid += query // num_queries * valid_stride
    kind = log_totals.dtype.element_ty
    log_total, offset = tl.load(log_totals + query), tl.load(offsets + query)
    for start in range(0, num_tokens, BLOCK_TOKENS):
        token = start + tl.arange(0, BLOCK_TOKENS)
        here = token < num_tokens
        shares = tl.exp2(_loaded(scores, valid, token, here, kind) - log_total)
        wanted = tl.load(products + token, mask=here, other=0.0).to(kind)
        tl.store(products + token, (shares * (wanted - offset)).to(products.dtype.element_ty), mask=here)
        tl.store(scores + token, shares.to(scores.dtype.element_ty), mask=here)
