"""Tokens of one's own: reads of DNA, by `plugins: [reads.py]`, `data.inputs.read: {modality: read}` and
`model.inputs.read: {}`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from perceiver_trainer import Input, Members, Modality, Prepared

BASES = b"NACGT"


@dataclass(frozen=True)
class Read(Modality):
    """Members KEY.read.fastq of one record: the number of each base in BASES and its quality, (num_bases, 2) uint8."""

    modality: Literal["read"] = "read"
    num_bases: int = 64
    usual: ClassVar[tuple[str, ...]] = ("read.fastq",)
    dtype: ClassVar[str] = "uint8"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_bases, 2)

    @property
    def sizes(self) -> dict[str, int]:
        return {"num_bases": self.num_bases}

    def prepare(self, found: Members, rng: np.random.Generator | None) -> Prepared:
        """Return num_bases of the read, from anywhere in training, and how many of them are there."""
        read, array = found[""].decoded(_decoded), np.zeros(self.shape, np.uint8)
        start = 0 if rng is None else int(rng.integers(max(len(read) - self.num_bases, 0) + 1))
        pairs = read[start : start + self.num_bases]
        array[: len(pairs)] = pairs
        return Prepared(array, len(pairs))

    @staticmethod
    def decoded_shape(role: str, content: bytes | memoryview) -> tuple[int, ...]:
        return _decoded(content).shape

    @staticmethod
    def draw(axes: Axes, found: Members) -> None:
        axes.plot(found[""].decoded(_decoded)[:, 1], linewidth=0.5)


@dataclass(frozen=True)
class ReadInput(Input):
    """A token for each base: a learned vector of the base and of its place, and the quality."""

    modality: Literal["read"] = "read"
    num_bases: int = 0
    """Bases of a read; 0 as in the data."""
    width: int = 15
    sizes: ClassVar[tuple[str, ...]] = ("num_bases",)
    dtype: ClassVar[str] = "uint8"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_bases, 2)

    @property
    def grid(self) -> tuple[int, ...]:
        return (self.num_bases,)

    @property
    def content_width(self) -> int:
        return self.width + 1

    def adapter(self) -> nn.Module:
        return _Tokens(self)


class _Tokens(nn.Module):
    def __init__(self, config: ReadInput) -> None:
        super().__init__()
        self.bases = nn.Embedding(len(BASES), config.width)
        self.places = nn.Embedding(config.num_bases, config.width)

    def forward(self, array: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the tokens (B, num_bases, content_width) of a batch (B, num_bases, 2)."""
        bases, qualities = array.unbind(dim=-1)
        tokens = self.bases(bases.long()) + self.places.weight
        return torch.cat([tokens, qualities[..., None] / 40], dim=-1).to(dtype)


def _decoded(content: bytes | memoryview) -> np.ndarray:
    lines = bytes(content).split(b"\n")
    if len(lines) < 4 or len(lines[1]) != len(lines[3]):
        raise ValueError("is no record of FASTQ: name, bases, +, as many qualities")
    bases = [BASES.find(base) for base in lines[1].upper()]
    return np.array([np.maximum(bases, 0), np.frombuffer(lines[3], np.uint8) - 33]).T.astype(np.uint8)
