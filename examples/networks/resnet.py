"""A small ResNet, by `plugins: [resnet.py]` and `model.network: {kind: resnet}`.

Convolutions read neighbours in the picture. The norms are of groups of channels: they need no statistics of the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from perceiver_trainer import CustomNetwork, Input, Output


@dataclass(frozen=True)
class Resnet(CustomNetwork):
    """A convolution, stages of two blocks, each with half the rows and columns and twice the channels, and logits."""

    kind: Literal["resnet"] = "resnet"
    width: int = 16
    num_stages: int = 3

    def module(self, inputs: Mapping[str, Input], outputs: Mapping[str, Output]) -> nn.Module:
        (image,), (label,) = inputs, outputs
        return _Module(self, image, inputs[image].shape[-1], label, outputs[label].num_classes)


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm, self.other_norm = nn.GroupNorm(4, width), nn.GroupNorm(4, width)
        self.skip = nn.Conv2d(channels, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        inner = functional.relu(self.norm(self.first(values)))
        return functional.relu(self.skip(values) + self.other_norm(self.second(inner)))


class _Module(nn.Module):
    def __init__(self, config: Resnet, image: str, channels: int, label: str, num_classes: int) -> None:
        super().__init__()
        self.image, self.label = image, label
        widths = [config.width * 2**stage for stage in range(config.num_stages)]
        pairs = zip([config.width, *widths], widths, strict=False)
        blocks = [(_Block(before, after, 1 + (before != after)), _Block(after, after, 1)) for before, after in pairs]
        self.stem = nn.Conv2d(channels, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*(block for pair in blocks for block in pair))
        self.logits = nn.Linear(widths[-1], num_classes)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of a batch of pictures, (B, height, width, channels) of bytes."""
        pixels = inputs[self.image].permute(0, 3, 1, 2).float() / 127.5 - 1
        return {self.label: self.logits(self.blocks(self.stem(pixels)).mean(dim=(2, 3)))}
