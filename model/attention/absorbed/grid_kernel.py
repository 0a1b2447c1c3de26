"""A Triton kernel for attention to a grid of tokens that never stores the scores.

A program takes some queries, one a thread, through a part of the grid, a block of columns after the other and row by
row, so that what is added up over columns stays within a thread. No array of queries by tokens exists, and no two
programs add to the same number: the same inputs give the same bits.

                  column part 0       column part 1
                block 0   block 1   block 2   ...     a program: one row part, one column part, one sample,
    row part 0  row 0     row 0                       up to 128 queries, each in a thread of its own;
                row 1     row 1                       block by block, and row by row within a block
    row part 1  row 2     row 2
                ...       ...                         grid_read.py adds up the sums of all parts

    b samples, N queries, Y rows, X columns, c channels of content
    S parts of the rows, R of the columns, P = S R of both, K blocks of columns, L columns of a block
"""

from math import prod
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.attention.absorbed.grid_tiles import BLOCK_COLUMNS, Tile
from model.attention.absorbed.tiled import MASKED

# Of so many channels, an image's colours and the mean, a thread keeps the sums, too; those of more are in memory.
MAX_KEPT_CHANNELS = 4
# Two run at a time; with six times as many the last ones leave little of a device idle.
PROGRAMS_PER_MULTIPROCESSOR = 12
# Of a thread's 255 registers: Triton 3.6 spills four of one kernel for compute capability 8.9.
MOST_SPILLS = 16
# No copies ahead of time, for which there are no registers; products and sums in one instruction.
OPTIONS = {"num_stages": 1, "enable_fp_fusion": True}

_MASKED = tl.constexpr(MASKED)

# The inverse deviation (b, Y, X), the content (b, c, Y, X), and which tokens are valid (b, Y, X).
Tokens = tuple[Tensor, Tensor, Tensor | None]
# Of rows, of columns and of content.
Parts = tuple[Tensor, Tensor, Tensor]


def sums_of_parts(
    tokens: Tokens, asked: Parts, wanted: tuple[Tensor, ...] | None, tile: Tile
) -> tuple[Parts, Parts, Tensor]:
    """Return sums of weighted tokens over each part of the grid: (b, R, Y, 1, N), (b, S, K, L, N), (b, P, c, 1, N).

    `asked` are products of queries with rows (b, Y, N), columns (b, X, N) and content (b, c, N), and the weights their
    exponentials relative to the highest score at that time, returned next in shapes that broadcast to those of the
    sums; last the weights' totals (b, P, 1, 1, N). `wanted` are the same products of the output's gradient, the
    logarithms of the totals (b, N), and the gradients' products with the output (b, N): with them, the weights are the
    gradients of the scores, and what is returned beside the sums is empty.
    """
    (b, Y, N), (_, X, _), (_, c, _) = (part.shape for part in asked)
    K, shape = X // tile.columns, kernel_shape(tile, c, N)
    query_blocks = -(-N // shape["BLOCK_QUERIES"])
    part_rows, part_blocks = part_shape(b * query_blocks, Y, K, _num_multiprocessors(asked[0].device), tile.columns)
    S, R = -(-Y // part_rows), -(-K // part_blocks)
    new = asked[0].new_empty
    # Those of rows are added to at each block of columns, as are those of content that is in memory.
    sums = new(b, R, Y, 1, N).zero_(), new(b, S, K, tile.columns, N), new(b, S * R, c, 1, N).zero_()
    tops = new(b, R, Y, 1, N).fill_(MASKED), new(b, S, K, 1, N), new(b, S * R, 1, 1, N)
    totals = torch.empty_like(tops[-1])
    with torch.cuda.device_of(totals):  # type: ignore[no-untyped-call]
        _read_kernel[query_blocks, S * R, b](
            *asked,
            *tokens,
            *(wanted or (None,) * 5),
            *sums,
            *tops,
            totals,
            *(N, Y, K, c, part_rows, part_blocks, R),
            **shape,
            num_warps=num_warps(shape),
            **OPTIONS,
        )
    return sums, tops, totals


def kernel_shape(tile: Tile, num_channels: int, num_queries: int) -> dict[str, int]:
    """Return the constants with which the kernel is compiled: no more queries than there are, one a thread."""
    return {
        # The loop over channels that are kept is unrolled, so their number is part of the code.
        "KEPT": num_channels if num_channels <= MAX_KEPT_CHANNELS else 0,
        "BLOCK_QUERIES": max(32, min(tile.queries, triton.next_power_of_2(num_queries))),
        "BLOCK_COLUMNS": tile.columns,
    }


def num_warps(shape: dict[str, int]) -> int:
    """Return the warps of a program, with a query a thread."""
    return shape["BLOCK_QUERIES"] // 32


def compiled(capability: tuple[int, int], shape: dict[str, int], *, backward: bool) -> Any:  # noqa: ANN401
    """Return the kernel as Triton compiles it for a compute capability, which need not be here, with masks."""
    names = _read_kernel.arg_names
    constants = shape if backward else {**shape, **dict.fromkeys(_GRADIENT)}
    kinds = {name: "i32" if name in _COUNTS else "*fp32" for name in names} | {"valid": "*i1"}
    kinds |= dict.fromkeys(constants, "constexpr")
    # As a launch sees it: PyTorch's memory is aligned to 16 bytes at least, and what is checked must be what runs.
    aligned = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if kinds[name][0] == "*"}
    return triton.compile(
        triton.compiler.ASTSource(_read_kernel, kinds, constants, aligned),
        target=triton.backends.compiler.GPUTarget("cuda", 10 * capability[0] + capability[1], 32),
        options={"num_warps": num_warps(shape), **OPTIONS},
    )


def fault(shared_bytes: int, num_spills: int) -> str | None:
    """Return what is wrong with a compiled kernel in words, or None.

    Memory that threads share is where they wait for each other's sums: a query has a thread to itself, and needs none.
    """
    if shared_bytes:
        return f"so that threads wait for each other ({shared_bytes} bytes that they share; 0 were expected)"
    return (
        f"with {num_spills} registers that spill; at most {MOST_SPILLS} do no harm"
        if num_spills > MOST_SPILLS
        else None
    )


def part_shape(
    programs: int, rows: int, blocks: int, multiprocessors: int, columns: int = BLOCK_COLUMNS
) -> tuple[int, int]:
    """Return how many rows and blocks of columns a program reads: fewer where few programs would leave a device idle.

    `programs` is how many there are if each reads the whole grid. A part of the rows keeps sums of all columns, a part
    of the columns those of all rows: of what makes enough programs, the least is kept.
    """
    wanted = -(-PROGRAMS_PER_MULTIPROCESSOR * multiprocessors // programs)
    parts = [(min(rows, -(-wanted // column_parts)), column_parts) for column_parts in range(1, blocks + 1)]
    S, R = max(parts, key=lambda pair: (min(wanted, prod(pair)), -pair[0] * blocks * columns - pair[1] * rows))
    return -(-rows // S), -(-blocks // R)


def _num_multiprocessors(device: torch.device) -> int:
    """How many the device has: one on the CPU, where Triton interprets."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


# Compiled once for all shapes, and so as it is tested.
_COUNTS = ("num_queries", "num_rows", "num_blocks", "num_channels", "part_rows", "part_blocks", "num_column_parts")
# None in the forward pass.
_GRADIENT = ("grad_rows", "grad_columns", "grad_content", "log_totals", "offsets")


@triton.jit(do_not_specialize=_COUNTS)
@no_type_check
def _read_kernel(
    rows, columns, content,
    inverse, values, valid,
    grad_rows, grad_columns, grad_content, log_totals, offsets,
    row_sums, column_sums, content_sums, row_tops, column_tops, tops, totals,
    num_queries, num_rows, num_blocks, num_channels, part_rows, part_blocks, num_column_parts,
    KEPT: tl.constexpr, BLOCK_QUERIES: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    # As long integers: the tokens of a batch can be more than 32 bits count.
    sample = tl.program_id(2).to(tl.int64)
    num_parts = tl.num_programs(1)
    column_part, row_part = tl.program_id(1) % num_column_parts, tl.program_id(1) // num_column_parts
    first_row, first_block = row_part * part_rows, column_part * part_blocks
    end_row = tl.minimum(first_row + part_rows, num_rows)
    end_block = tl.minimum(first_block + part_blocks, num_blocks)
    num_columns = num_blocks * BLOCK_COLUMNS
    num_tokens = num_rows * num_columns
    # Seeing that queries are contiguous and aligned, Triton would give a thread four of them, and the columns of one to
    # several threads, which then wait for each other at every sum: the hint hides that they are aligned. That they are
    # contiguous must be seen: between axes of which neither is, Triton 3.6 lays the columns across threads.
    query = tl.multiple_of(tl.program_id(0) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES), 1)
    here = query < num_queries
    queries = query[None, :]

    rows += sample * num_rows * num_queries + query
    columns += sample * num_columns * num_queries + queries
    content += sample * num_channels * num_queries + query
    inverse += sample * num_tokens
    values += sample * num_channels * num_tokens
    if valid is not None:
        valid += sample * num_tokens
    part = sample * num_parts + tl.program_id(1)
    column_part += sample * num_column_parts
    row_part += sample * (num_parts // num_column_parts)
    row_sums += column_part * num_rows * num_queries + query
    column_sums += row_part * num_columns * num_queries + queries
    content_sums += part * num_channels * num_queries + query
    if grad_rows is None:
        row_tops += column_part * num_rows * num_queries + query
        column_tops += row_part * num_blocks * num_queries + query
        top = tl.full([BLOCK_QUERIES], _MASKED, rows.dtype.element_ty)
        total = tl.full([BLOCK_QUERIES], 0.0, rows.dtype.element_ty)
    else:
        grad_rows += sample * num_rows * num_queries + query
        grad_columns += sample * num_columns * num_queries + queries
        grad_content += sample * num_channels * num_queries + query
        top = tl.load(log_totals + sample * num_queries + query, mask=here, other=0.0)
        offset = tl.load(offsets + sample * num_queries + query, mask=here, other=0.0)
        # Nothing is rescaled in the backward pass: the logarithms of the totals are known from the start.
        rescale = tl.full([BLOCK_QUERIES], 1.0, rows.dtype.element_ty)
    if KEPT > 0:
        num_channels = KEPT
    channels = tl.arange(0, triton.next_power_of_2(KEPT if KEPT > 0 else 1))[:, None]
    kept = tl.full([triton.next_power_of_2(KEPT if KEPT > 0 else 1), BLOCK_QUERIES], 0.0, rows.dtype.element_ty)

    for block in range(first_block, end_block):
        column = block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
        here_columns = column[:, None] * num_queries
        rest = tl.load(columns + here_columns, mask=here[None, :], other=0.0)
        if grad_rows is not None:
            grad_rest = tl.load(grad_columns + here_columns, mask=here[None, :], other=0.0)
        sums = tl.full([BLOCK_COLUMNS, BLOCK_QUERIES], 0.0, rows.dtype.element_ty)
        for row in range(first_row, end_row):
            token = row * num_columns + column
            here_row = row * num_queries
            scale = tl.load(inverse + token)
            first = tl.load(rows + here_row, mask=here, other=0.0)
            scores = _products(first, rest, content, scale, values + token, here, num_queries, num_tokens, num_channels)
            if valid is not None:
                scores = tl.where(tl.load(valid + token)[:, None], scores, _MASKED)
            if grad_rows is None:
                # An online softmax: what was added up so far is relative to the top of then.
                higher = tl.maximum(top, tl.max(scores, axis=0))
                rescale = tl.exp2(top - higher)
                top = higher
                weights = tl.exp2(scores - top[None, :])
                total = total * rescale + tl.sum(weights, axis=0)
            else:
                first = tl.load(grad_rows + here_row, mask=here, other=0.0)
                products = _products(
                    first, grad_rest, grad_content, scale, values + token, here, num_queries, num_tokens, num_channels
                )
                weights = tl.exp2(scores - top[None, :]) * (products - offset[None, :])
            kept *= rescale[None, :]
            for channel in tl.static_range(KEPT):
                value = tl.load(values + token + channel * num_tokens)
                added = tl.sum(weights * value[:, None], axis=0)
                # Registers cannot be indexed: the sum is added where the number of the channel is the same.
                kept = tl.where(channels == channel, kept + added[None, :], kept)
            if KEPT == 0:
                for channel in range(num_channels):
                    value = tl.load(values + token + channel * num_tokens)
                    old = tl.load(content_sums + channel * num_queries, mask=here, other=0.0) * rescale
                    added = tl.sum(weights * value[:, None], axis=0)
                    tl.store(content_sums + channel * num_queries, old + added, mask=here)
            # From here on for the positions, into which the deviation was not multiplied as it was into the content.
            weights *= scale[:, None]
            sums = sums * rescale[None, :] + weights
            old = tl.load(row_sums + here_row, mask=here, other=0.0)
            if grad_rows is None:
                # The sums of this row were left at the top of the block before.
                old *= tl.exp2(tl.load(row_tops + here_row, mask=here, other=_MASKED) - top)
                tl.store(row_tops + here_row, top, mask=here)
            tl.store(row_sums + here_row, old + tl.sum(weights, axis=0), mask=here)
            # Sums in memory are read again at the next row or block, by whichever thread.
            tl.debug_barrier()
        tl.store(column_sums + here_columns, sums, mask=here[None, :])
        if grad_rows is None:
            # Each block ends with a top of its own; grid_read.py brings them together.
            tl.store(column_tops + block * num_queries, top, mask=here)

    if KEPT > 0:
        tl.store(content_sums[None, :] + channels * num_queries, kept, mask=here[None, :] & (channels < KEPT))
    if grad_rows is None:
        tl.store(tops + part * num_queries + query, top, mask=here)
        tl.store(totals + part * num_queries + query, total, mask=here)


@triton.jit
@no_type_check
def _products(first, rest, content, scale, values, here, num_queries, num_tokens, num_channels):
    """Vectors times the tokens of a row in a block of columns."""
    products = (first[None, :] + rest) * scale[:, None]
    for channel in tl.range(num_channels, loop_unroll_factor=4):
        asked = tl.load(content + channel * num_queries, mask=here, other=0.0)
        value = tl.load(values + channel * num_tokens)
        products += asked[None, :] * value[:, None]
    return products
