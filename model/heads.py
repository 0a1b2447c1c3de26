"""From decoded rows to the answer of a task.

B samples, O queries, E channels of a decoded row
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from model.config import PerceiverConfig
from model.config_outputs import AnyOutput, FlowOutput, GridOutput, LabelOutput, TextOutput
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
            shape = (config.inputs.flow.height, config.inputs.flow.width)
            return GridHead(ZeroLinear(width, 2), shape, output.rescale)
        case GridOutput():
            return GridHead(Projection(width, output.num_channels), tuple(output.shape))
