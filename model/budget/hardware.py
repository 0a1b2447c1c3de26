"""Devices by kind: their peak rates by data sheet, and the fractions of the peaks that a step is assumed to reach.

The one place with such numbers. A share is an expectation until docs/gpu.md has it measured; the CPU's are measured.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Hardware:
    """One device of a kind: a GPU, or a core of a processor."""

    kind: Kind
    """The name of its type in PyTorch."""
    source: str
    """The source of the numbers."""
    memory_bytes: float
    """Bytes of its own memory."""
    fp32_flops: float
    """Peak of dense products in float32, a second."""
    half_flops: float
    """Peak of dense products in bfloat16 and float16, a second."""
    memory_bytes_per_second: float
    """Peak of its memory, reading and writing together."""
    link_bytes_per_second: float
    """Peak of what it sends to the other devices of its node, in one direction."""
    host_bytes_per_second: float
    """Peak of its copies to the host's memory."""
    product_share: float
    """Share of the peak that products reach."""
    memory_share: float
    """Share of the memory's peak that element-wise work reaches."""
    transfer_share: float
    """Share of a link's peak that exchanges and copies reach."""
    hop_seconds: float
    """The latency of an empty message between two devices."""

    def product_rate(self, precision: Precision) -> float:
        """Return the operations a second that products reach."""
        return self.product_share * (self.fp32_flops if precision == "fp32" else self.half_flops)

    @property
    def memory_rate(self) -> float:
        """Bytes a second that element-wise work reaches."""
        return self.memory_share * self.memory_bytes_per_second

    @property
    def host_rate(self) -> float:
        """Bytes a second of a copy to the host's memory."""
        return self.transfer_share * self.host_bytes_per_second


_EXPECTED = "data sheet, dense; shares of the peaks are expected, not measured"

# fp32 without TF32, which is off unless train.tf32 is set. Links in one direction: half of what data sheets print.
HARDWARE: dict[str, Hardware] = {
    "H100": Hardware(
        "cuda", f"H100 SXM 80 GB: {_EXPECTED}", 80e9, 67e12, 989e12, 3.35e12, 450e9, 64e9, 0.6, 0.8, 0.8, 10e-6
    ),
    "H200": Hardware(
        "cuda", f"H200 SXM 141 GB: {_EXPECTED}", 141e9, 67e12, 989e12, 4.8e12, 450e9, 64e9, 0.6, 0.8, 0.8, 10e-6
    ),
    "A100": Hardware(
        "cuda", f"A100 SXM 80 GB: {_EXPECTED}", 80e9, 19.5e12, 312e12, 2.039e12, 300e9, 32e9, 0.6, 0.8, 0.8, 10e-6
    ),
    "CPU": Hardware(
        "cpu", "one core of an AMD EPYC, measured", 4e9, 9e10, 2e11, 2.3e10, 1e9, 2.3e10, 1.0, 1.0, 1.0, 1e-4
    ),
}
