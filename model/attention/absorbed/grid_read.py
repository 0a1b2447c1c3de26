"""The separable form of tiled.py on a device, with the kernel of grid_kernel.py.

A grid is rows of columns: the columns are its last axis, the rows all others. What the kernel leaves to do is small:
one number for each query and row, column or channel of the content.

    B samples, b of them read together, N queries, M tokens, C channels, c of content, X columns
"""

from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from model.attention.absorbed.grid_kernel import Parts, Tokens, sums_of_parts
from model.attention.absorbed.grid_tiles import Tile, tile_of
from model.attention.absorbed.tiled import LOG2_E, MASKED
from model.attention.absorbed.token_sources import SeparableTokens, over_axes
from model.attention.alignment import widened

# Of the arrays of rows and of columns of the samples that are read together.
DEVICE_TILE_ELEMENTS = 2**26


def read_grid(
    queries_BNC: Float[Tensor, "B N C"],
    source: SeparableTokens,
    valid_BM: Bool[Tensor, "B M"] | None = None,
    tile: Tile | None = None,
) -> Float[Tensor, "B N C"]:
    """Return what `tiled.read_tokens` does, for a grid of two axes or more; by default with the device's tile."""
    tile = tile or tile_of(queries_BNC.device)
    out: Tensor = _ReadGrid.apply(queries_BNC, source, valid_BM, tile)  # type: ignore[no-untyped-call]
    return out


class _ReadGrid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        queries_BNC: Tensor,
        source: SeparableTokens,
        valid_BM: Tensor | None,
        tile: Tile,
    ) -> Tensor:
        out_BNC = torch.empty_like(queries_BNC)
        log_sums_BN = queries_BNC.new_empty(queries_BNC.shape[:2], dtype=source.dtype)
        for samples in _groups(source, queries_BNC):
            tokens = _tokens(source, samples, valid_BM, tile)
            sums, tops, totals = sums_of_parts(tokens, _asked(source, queries_BNC[samples], tile), None, tile)
            # Every part of the grid has weighted its tokens relative to the highest score that it had met: brought to
            # the highest of all, they can be added.
            top = tops[-1].amax(dim=1, keepdim=True)
            total = (totals * (tops[-1] - top).exp2()).sum(dim=1, keepdim=True)
            shares = [part * ((its_top - top).exp2() / total) for part, its_top in zip(sums, tops, strict=True)]
            out_BNC[samples] = _mixed(source, *shares)
            log_sums_BN[samples] = (top + total.log2())[:, 0, 0, 0]
        ctx.source, ctx.valid_BM, ctx.tile = source, valid_BM, tile
        ctx.save_for_backward(queries_BNC, out_BNC, log_sums_BN)
        return out_BNC

    @staticmethod
    def backward(ctx: Any, grad_BNC: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        queries_BNC, out_BNC, log_sums_BN = ctx.saved_tensors
        source, tile = ctx.source, ctx.tile
        grad_queries = torch.empty_like(queries_BNC)
        # What softmax's gradient takes from all products of a query, as tiled.py says: no token need be read for it.
        offsets_BN = (grad_BNC * out_BNC).sum(dim=-1, dtype=source.dtype)
        for samples in _groups(source, queries_BNC):
            tokens, asked = _tokens(source, samples, ctx.valid_BM, tile), _asked(source, queries_BNC[samples], tile)
            wanted = (*_products(source, grad_BNC[samples], tile), log_sums_BN[samples], offsets_BN[samples])
            sums, _, _ = sums_of_parts(tokens, asked, wanted, tile)
            grad_queries[samples] = _mixed(source, *sums)
        return grad_queries, None, None, None


def _groups(source: SeparableTokens, queries_BNC: Tensor) -> list[slice]:
    """Samples that are read together: so many that the arrays of rows and of columns stay small."""
    num_samples, num_queries, _ = queries_BNC.shape
    *leading, columns = source.shape
    group = DEVICE_TILE_ELEMENTS // (4 * num_queries * (prod(leading) + columns))
    # The third axis of a CUDA grid ends there.
    group = min(max(group, 1), 2**16 - 1)
    return [slice(start, min(start + group, num_samples)) for start in range(0, num_samples, group)]


def _tokens(source: SeparableTokens, samples: slice, valid_BM: Tensor | None, tile: Tile) -> Tokens:
    """The tokens, with ones beyond the grid up to a whole block of columns."""
    beyond = -source.shape[-1] % tile.columns

    def rows(numbers: Tensor) -> Tensor:
        numbers = numbers.reshape(*numbers.shape[:-1], -1, source.shape[-1])
        # Ones, or any other finite number: the share of these columns is 0, and 0 times infinity would be NaN.
        return functional.pad(numbers, (0, beyond), value=1) if beyond else numbers.contiguous()

    valid = None if valid_BM is None else rows(valid_BM[samples])
    return rows(source.inverse_BM[samples]), rows(source.content_BcM[samples]), valid


def _asked(source: SeparableTokens, queries_bNC: Tensor, tile: Tile) -> Parts:
    """The products of the queries: beyond the grid they are lower than masked scores, so that no share is there."""
    rows, columns, content = _products(source, queries_bNC.to(source.dtype) * LOG2_E, tile)
    columns[:, source.shape[-1] :] = 2 * MASKED
    return rows, columns, content


def _products(source: SeparableTokens, vectors_bNC: Tensor, tile: Tile) -> Parts:
    """The products of vectors with rows and columns, and their content: (b, _, N) each."""
    content, *leading, columns = source.products(vectors_bNC)
    columns = widened(columns, columns.shape[-1] + -source.shape[-1] % tile.columns)
    rows = over_axes(leading).flatten(2)
    # Queries last: threads beside each other have queries beside each other, and read numbers beside each other.
    return rows.mT.contiguous(), columns.mT.contiguous(), content.mT.contiguous()


def _mixed(source: SeparableTokens, rows: Tensor, columns: Tensor, content: Tensor) -> Tensor:
    """The sums over all parts, in the channels of a token."""
    # Parts are added here, in one order, and not atomically in the kernel: the same inputs give the same bits.
    rows_bYN, columns_bXN, content_bcN = (part.sum(dim=1).flatten(1, 2) for part in (rows, columns, content))
    *leading, num_columns = source.shape
    places = rows_bYN.reshape(len(rows_bYN), *leading, -1)
    along = [
        places.movedim(1 + axis, 1).reshape(len(places), length, -1, places.shape[-1]).sum(dim=2)
        for axis, length in enumerate(leading)
    ]
    return source.mixed(torch.cat([content_bcN, *along, columns_bXN[:, :num_columns]], dim=1).mT)
