"""A Transformer over the pixels of a picture, by `plugins: [transformer.py]` and `model.network: {kind: transformer}`.

The baseline of the Perceiver paper's section 4.1: every pixel is a token, and each attends to all. Its cost grows with
the square of the pixels, so that the picture must be small.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perceiver_trainer import CustomNetwork, Input, Output


@dataclass(frozen=True)
class Transformer(CustomNetwork):
    """Pixels with learned positions, layers of self-attention, the mean, and logits."""

    kind: Literal["transformer"] = "transformer"
    width: int = 64
    num_layers: int = 4
    num_heads: int = 4

    def module(self, inputs: Mapping[str, Input], outputs: Mapping[str, Output]) -> nn.Module:
        (image,), (label,) = inputs, outputs
        return _Module(self, image, inputs[image].shape, label, outputs[label].num_classes)


class _Module(nn.Module):
    def __init__(self, config: Transformer, image: str, shape: tuple[int, ...], label: str, num_classes: int) -> None:
        super().__init__()
        self.image, self.label = image, label
        height, width, channels = shape
        self.embed = nn.Linear(channels, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(height * width, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.num_heads,
            4 * config.width,
            dropout=0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        self.norm, self.logits = nn.LayerNorm(config.width), nn.Linear(config.width, num_classes)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of a batch of pictures, (B, height, width, channels) of bytes."""
        pixels = inputs[self.image].flatten(1, 2).float() / 127.5 - 1
        tokens = self.layers(self.embed(pixels) + self.positions)
        return {self.label: self.logits(self.norm(tokens.mean(dim=1)))}
