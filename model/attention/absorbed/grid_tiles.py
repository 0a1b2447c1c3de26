"""The tile sizes of grid_kernel.py by device. They are a table, because the last bits of the sums depend on them.

A search at the start of a run would let the clock decide how its sums are rounded, and a resumed run could choose
otherwise (docs/decisions/10-the-tile-is-a-table.md). benchmarks/gpu measures `CANDIDATES` and prints what belongs into
`TILES`.
"""

from dataclasses import dataclass
from types import MappingProxyType

import torch


@dataclass(frozen=True)
class Tile:
    """A block of the grid, and the queries that go through it."""

    columns: int
    """Columns of a block; a thread keeps up to five numbers of each."""
    queries: int
    """Queries of a program at the most, one a thread."""


# As many as compile without spilling: a thread keeps up to five numbers of each column.
BLOCK_COLUMNS = 16
MAX_BLOCK_QUERIES = 128
DEFAULT = Tile(BLOCK_COLUMNS, MAX_BLOCK_QUERIES)
# Of them 16 columns and 128 queries were compiled without spilling by Triton 3.5.1 to 3.7.1; a tile that spills on a
# device is not used there.
CANDIDATES = tuple(Tile(columns, queries) for columns in (16, 8) for queries in (128, 64, 32, 256))
# By compute capability, where another tile than the default was measured to be faster.
TILES: MappingProxyType[tuple[int, int], Tile] = MappingProxyType({})


def tile_of(device: torch.device) -> Tile:
    """Return the tile of a device; on the CPU, where Triton interprets, the default."""
    return TILES.get(torch.cuda.get_device_capability(device), DEFAULT) if device.type == "cuda" else DEFAULT
