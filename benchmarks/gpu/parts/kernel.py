"""The kernel of the separable form alone: its tests on a GPU, each of its tiles, and the tiles that it replaces."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu.clock import timed
from benchmarks.gpu.setting import ROOT, Found, Setting
from model.attention.absorbed.grid_support import kernel_problem, triton_version
from model.attention.absorbed.grid_tiles import CANDIDATES, DEFAULT, Tile
from model.attention.absorbed.tiled import read_tokens
from model.attention.absorbed.token_sources import GridTokens, SeparableTokens
from model.positions import axis_features

TESTS = ("tests/model/test_grid_kernel.py", "tests/model/test_attention_kernels.py")
NEED_A_GPU = "on_a_device or a_gpu_that_is_here"


def measure(setting: Setting) -> Found:
    """Return a row for each tile, and the line of model/attention/absorbed/grid_tiles.py that follows from them."""
    found: Found = {"triton": triton_version() or "not installed", "rows": []}
    if setting.on_gpu:
        found["problem"] = kernel_problem(setting.device, 4, 512)
    elif find_spec("triton"):
        found["compiled"] = _compiled()
    for reader, tile in _readers(setting):
        for row in _rows(setting, reader, tile):
            found["rows"].append(row)
            setting.keep("kernel", found)
            print(row, flush=True)
    found["line"] = _line(found["rows"])
    if setting.on_gpu:
        found["tests"] = _tests()
    return found


def _readers(setting: Setting) -> list[tuple[str, Tile | None]]:
    tiles = [(f"kernel {tile.columns} x {tile.queries}", tile) for tile in CANDIDATES] if setting.on_gpu else []
    return [*tiles, ("tile by tile", None)]


def _rows(setting: Setting, reader: str, tile: Tile | None) -> list[Found]:
    sizes = ((2, 16, 16),) if setting.is_tiny else ((64, 224, 512), (16, 224, 512))
    return [_row(setting, reader, _read(tile), *each) for each in (sizes if tile else sizes[:1])]


def _read(tile: Tile | None) -> Callable[[Tensor, SeparableTokens], Tensor]:
    if tile is None:

        def by_tiles(asked: Tensor, source: SeparableTokens) -> Tensor:
            with patch("model.attention.absorbed.tiled._has_kernel", lambda *_: False):
                read: Tensor = read_tokens(asked, source)
            return read

        return by_tiles
    from model.attention.absorbed.grid_read import read_grid

    return partial(_by_kernel, read_grid, tile)


def _by_kernel(read_grid: Callable[..., Tensor], tile: Tile, asked: Tensor, source: SeparableTokens) -> Tensor:
    read: Tensor = read_grid(asked, source, None, tile)
    return read


def _row(
    setting: Setting,
    reader: str,
    read: Callable[[Tensor, SeparableTokens], Tensor],
    batch: int,
    side: int,
    num_queries: int,
) -> Found:
    tables = axis_features((side, side), 64, [float(side)] * 2, dtype=torch.float32)
    content = torch.randn(batch, side * side, 3, device=setting.device)
    source = SeparableTokens(GridTokens(content, tuple(table.to(setting.device) for table in tables)))
    width = content.shape[-1] + tables[0].shape[-1]
    asked = torch.randn(batch, num_queries, width, device=setting.device).mul_(0.05).requires_grad_()
    upstream = torch.randn_like(asked)
    row: Found = {"reader": reader, "batch": batch, "side": side, "queries": num_queries}
    try:
        forward = timed(lambda: read(asked.detach(), source), setting.device, turns=3)
        both = timed(lambda: torch.autograd.grad(read(asked, source), asked, upstream), setting.device, turns=3)
    except RuntimeError as error:
        return {**row, "error": f"{error}"[:300]}
    scores = batch * num_queries * side**2
    return {
        **row,
        "forward_ms": forward.milliseconds,
        "both_ms": both.milliseconds,
        "peak_mib": both.added_mib,
        "ns_a_score": 1e6 * both.milliseconds / scores,
    }


def _line(rows: list[Found]) -> str:
    """Return what belongs into the table of tiles: nothing where the default is as fast as the fastest."""
    # Reversed, so that of a reader's rows the first stays, which has the largest batch.
    largest = {
        row["reader"]: row["both_ms"] for row in reversed(rows) if "both_ms" in row and "kernel" in row["reader"]
    }
    if not largest:
        return "no kernel was measured"
    best = min(largest, key=lambda reader: largest[reader])
    default = f"kernel {DEFAULT.columns} x {DEFAULT.queries}"
    # Turns differ by as much: a line in the table would be luck, and change the last bits of runs.
    if default in largest and largest[default] < 1.03 * largest[best]:
        return "the default is within 3 % of the fastest"
    columns, queries = re.findall(r"\d+", best)
    return f"{torch.cuda.get_device_capability()}: Tile(columns={columns}, queries={queries}),"


def _compiled() -> list[Found]:
    """Return how Triton compiles the kernel for an H100, whether one is here or not."""
    from model.attention.absorbed.grid_kernel import compiled, fault, kernel_shape

    rows = []
    for backward in (False, True):
        kernel = compiled((9, 0), kernel_shape(DEFAULT, 4, 512), backward=backward)
        shared = kernel.metadata.shared
        rows.append({"backward": backward, "shared_bytes": shared, "fault": fault(shared, 0) or ""})
    return rows


def _tests() -> str:
    """Run the tests that need a GPU, and return how they ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", NEED_A_GPU, *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]
