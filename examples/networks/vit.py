"""A ViT, by `plugins: [vit.py]` and `model.network: {kind: vit, patch: 4}`.

The pixels of a patch are one token: the network is told which pixels are neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perceiver_trainer import CustomNetwork, Input, Output


@dataclass(frozen=True)
class Vit(CustomNetwork):
    """Patches with learned positions, layers of self-attention, the mean, and logits."""

    kind: Literal["vit"] = "vit"
    patch: int = 4
    width: int = 64
    num_layers: int = 4
    num_heads: int = 4

    def module(self, inputs: Mapping[str, Input], outputs: Mapping[str, Output]) -> nn.Module:
        (image,), (label,) = inputs, outputs
        return _Module(self, image, inputs[image].shape, label, outputs[label].num_classes)


class _Module(nn.Module):
    def __init__(self, config: Vit, image: str, shape: tuple[int, ...], label: str, num_classes: int) -> None:
        super().__init__()
        self.image, self.label = image, label
        height, width, channels = shape
        num_patches = (height // config.patch) * (width // config.patch)
        self.embed = nn.Conv2d(channels, config.width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(num_patches, config.width))
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
        pixels = inputs[self.image].permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = self.layers(self.embed(pixels).flatten(2).mT + self.positions)
        return {self.label: self.logits(self.norm(tokens.mean(dim=1)))}
