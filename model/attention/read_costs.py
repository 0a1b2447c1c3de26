"""The cost per score of each cross-attention form, by kind of device. No other module holds these constants.

Peaks of devices are in model/budget/hardware.py. benchmarks/gpu measures a GPU's numbers and prints them as they are
written here.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

DeviceKind = Literal["cpu", "cuda", "cuda without kernel"]


@dataclass(frozen=True)
class ReadConstants:
    """Operations of a matrix product that take as long as one score's way through softmax, forward and backward."""

    plain: int
    """Cost in flash attention over keys and values, besides its products."""
    absorbed: int
    """Tile by tile, beside the products."""
    separable: int
    """The additions and sums that the separable form makes of the products among them."""
    plain_products: float = 1.0
    """The slowdown of flash attention's products, compared with other products."""
    absorbed_products: float = 1.0
    """The slowdown of the tiles' products, compared with other products."""
    wide: int = 230
    """Cost in attention over keys and values with heads too wide for flash attention, besides its products."""
    wide_products: float = 1.0
    """The slowdown of such heads' products, compared with other products."""


READ_CONSTANTS: MappingProxyType[DeviceKind, ReadConstants] = MappingProxyType(
    {
        # Measured on one core in float32 (docs/model.md).
        "cpu": ReadConstants(plain=230, absorbed=230, separable=320),
        # Not measured: expected of an H100 in bf16 from its data sheet, 990 TFLOP/s and 3.35 TB/s (296 operations
        # in the time of a byte), 3.9 T exponentials and 31 T float32 instructions a second.
        #   plain      two exponentials and 16 other instructions, in registers; its products are left to the matrix
        #              instructions before Hopper's, half as fast
        #   wide       30 bytes of scores, shares and their gradients, which stay in the cache
        #              (model/attention/wide.py), taken to be twice as fast as the memory: 148 operations a byte
        #   absorbed   26 bytes in the same way (model/attention/absorbed/tiled.py)
        #   separable  57 instructions of the kernel's inner loops, 26 forwards and 31 backwards
        "cuda": ReadConstants(plain=1_000, absorbed=3_850, separable=1_830, plain_products=2.0, wide=4_440),
        # Tile by tile in float32, where Triton has no kernel for it: 160 bytes that stay in the cache.
        "cuda without kernel": ReadConstants(
            plain=1_000, absorbed=3_850, separable=23_700, plain_products=2.0, wide=4_440
        ),
    }
)
