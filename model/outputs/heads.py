"""From decoded rows to the answer of a task.

B samples, O queries, E channels of a decoded row
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from model.config.outputs import AnyOutput, FlowOutput, GridOutput, LabelOutput, TextOutput
from model.config.perceiver import PerceiverConfig
from model.parameters import Projection, ZeroLinear


class MeanHead(nn.Module):
    """The mean of the latents and one linear layer: the head of the first paper, with no norm before it."""

    def __init__(self, latent_width: int, num_classes: int) -> None:
        super().__init__()
        self.logits = ZeroLinear(latent_width, num_classes)

    def forward(self, latents_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B classes"]:
        """Return the logits of each sample."""
        out: Tensor = self.logits(latents_BND.mean(dim=1))
        return out


class LabelHead(nn.Module):
    """The one decoded row and one linear layer, for GLUE with a hidden layer between."""

    def __init__(self, width: int, output: LabelOutput) -> None:
        super().__init__()
        self.hidden = Projection(width, width) if output.hidden_layer else None
        self.logits = Projection(width, output.num_classes)

    def forward(self, rows_BOE: Float[Tensor, "B 1 E"]) -> Float[Tensor, "B classes"]:
        """Return the logits of each sample."""
        row_BE = rows_BOE[:, 0]
        if self.hidden is not None:
            row_BE = torch.tanh(self.hidden(row_BE))
        out: Tensor = self.logits(row_BE)
        return out


class TextHead(nn.Module):
    """The product with the input's embedding, and a bias."""

    def __init__(self, vocabulary: int, embedding: Callable[[], Tensor]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        # A function, not the table: as a submodule its weight would have two names in the state dict.
        self.embedding = embedding

    def forward(self, rows_BOE: Float[Tensor, "B O E"]) -> Float[Tensor, "B O vocabulary"]:
        """Return the logits of every place."""
        return functional.linear(rows_BOE, self.embedding(), self.bias)


class GridHead(nn.Module):
    """A linear layer from each row to the values of its cell; those of the whole grid take its shape."""

    def __init__(self, projection: nn.Linear, shape: tuple[int, ...], divisor: float = 1.0) -> None:
        super().__init__()
        self.values, self.shape, self.divisor = projection, shape, divisor

    def forward(self, rows_BOE: Float[Tensor, "B O E"], *, whole: bool) -> Float[Tensor, "B *O c"]:
        """Return the values, as (B, *shape, c) of the whole grid and as (B, O, c) of some points."""
        values: Tensor = self.values(rows_BOE) / self.divisor
        return values.reshape(values.shape[0], *self.shape, -1) if whole else values


class UpsamplingHead(nn.Module):
    """The motion of coarse cells, and how much each pixel of a cell takes of the 3x3 cells around it.

    RAFT's convex upsampling (arXiv 2003.12039, section 3.3): the shares of a pixel add up to 1; beyond the edge nothing
    moves. Perceiver IO has it over 64 decoded channels (appendix H).
    """

    def __init__(self, width: int, size: tuple[int, int], factor: int, divisor: float) -> None:
        super().__init__()
        self.size, self.factor, self.divisor = size, factor, divisor
        self.values = ZeroLinear(width, 2)
        self.shares = Projection(9 * width, 9 * factor**2)

    def forward(self, rows_BOE: Float[Tensor, "B O E"], *, whole: bool) -> Float[Tensor, "B H W 2"]:
        """Return the motion of every pixel, in pixels."""
        if not whole:
            raise ValueError("points.flow: expected none, since a cell's motion needs its neighbours; leave it out")
        factor, (height, width) = self.factor, self.size
        rows, columns = -(-height // factor), -(-width // factor)
        shares = self.shares(_around(rows_BOE, rows, columns).flatten(2))
        shares_BO9f = shares.view(*shares.shape[:2], 9, factor**2).softmax(dim=2)
        # A cell moves by cells, each as wide as `factor` pixels.
        motion_BO92 = _around(self.values(rows_BOE) * (factor / self.divisor), rows, columns)
        pixels = (shares_BO9f.mT @ motion_BO92).view(-1, rows, columns, factor, factor, 2).transpose(2, 3)
        out: Tensor = pixels.reshape(-1, rows * factor, columns * factor, 2)[:, :height, :width]
        return out


def _around(values_BOc: Float[Tensor, "B O c"], rows: int, columns: int) -> Float[Tensor, "B O 9 c"]:
    """The 3x3 cells around each cell of a grid, row by row; outside of it there are zeros."""
    wide = functional.pad(values_BOc.view(-1, rows, columns, values_BOc.shape[-1]), (0, 0, 1, 1, 1, 1))
    shifted = [wide[:, row : row + rows, column : column + columns] for row in range(3) for column in range(3)]
    return torch.stack(shifted, dim=3).flatten(1, 2)


def head(output: AnyOutput, width: int, config: PerceiverConfig, embedding: Callable[[], Tensor]) -> nn.Module:
    """Return the head of an output that is read by queries."""
    match output:
        case LabelOutput():
            return LabelHead(width, output)
        case TextOutput():
            assert config.inputs.text is not None
            return TextHead(config.inputs.text.vocabulary, embedding)
        case FlowOutput():
            assert config.inputs.flow is not None
            shape, factor = (config.inputs.flow.height, config.inputs.flow.width), config.inputs.flow.upsampling
            if factor > 1:
                return UpsamplingHead(width, shape, factor, output.rescale)
            return GridHead(ZeroLinear(width, 2), shape, output.rescale)
        case GridOutput():
            return GridHead(Projection(width, output.num_channels), tuple(output.shape))
