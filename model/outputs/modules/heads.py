"""The heads: from decoded rows to the output of a task.

B samples, O queries, E channels of a decoded row
"""

from collections.abc import Callable
from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from model.parameters import Projection, ZeroLinear


class MeanHead(nn.Module):
    """The mean of the latents and one linear layer: the head of the first paper, or with a norm between them."""

    def __init__(self, latent_width: int, num_answered: int, *, has_norm: bool = False) -> None:
        super().__init__()
        # Without the option there is no module: the names are those of the paper's network.
        if has_norm:
            self.norm = nn.LayerNorm(latent_width)
        self.has_norm = has_norm
        self.logits = ZeroLinear(latent_width, num_answered)

    def forward(self, latents_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B c"]:
        """Return the numbers of each sample."""
        mean_BD = latents_BND.mean(dim=1)
        out: Tensor = self.logits(self.norm(mean_BD) if self.has_norm else mean_BD)
        return out


class RowHead(nn.Module):
    """The one decoded row and one linear layer, for GLUE with a hidden layer between."""

    def __init__(self, width: int, num_answered: int, *, hidden_layer: bool) -> None:
        super().__init__()
        self.hidden = Projection(width, width) if hidden_layer else None
        self.logits = Projection(width, num_answered)

    def forward(self, rows_BOE: Float[Tensor, "B 1 E"]) -> Float[Tensor, "B c"]:
        """Return the numbers of each sample."""
        row_BE = rows_BOE[:, 0]
        if self.hidden is not None:
            row_BE = torch.tanh(self.hidden(row_BE))
        out: Tensor = self.logits(row_BE)
        return out


class EmbeddingHead(nn.Module):
    """A direction, as long as the root of the inverse temperature."""

    # As CLIP: products of more than 100 stand for no more certainty, and let the training diverge.
    highest = log(100.0)

    def __init__(self, width: int, num_answered: int, *, pools: bool, hidden_layer: bool, temperature: float) -> None:
        super().__init__()
        self.pools = pools
        self.row = RowHead(width, num_answered, hidden_layer=hidden_layer)
        self.log_scale = nn.Parameter(torch.full((1,), -log(temperature)))

    def forward(self, rows: Float[Tensor, "B O E"]) -> Float[Tensor, "B c"]:
        """Return the vector of each sample, in fp32."""
        direction = functional.normalize(self.row(rows.mean(dim=1, keepdim=True) if self.pools else rows).float())
        out: Tensor = direction * (0.5 * self.log_scale.float().clamp(max=self.highest)).exp()
        return out


class ScaledHead(nn.Module):
    """Another head, whose numbers are brought to the unit of what they are compared with."""

    def __init__(self, head: nn.Module, offset: float, scale: float) -> None:
        super().__init__()
        self.head, self.offset, self.scale = head, offset, scale

    def forward(self, rows: Float[Tensor, "B *n"]) -> Float[Tensor, "B c"]:
        """Return the numbers of each sample in their own unit."""
        # In fp32: of 40 000 with a scale of 1, half precision would keep nothing.
        out: Tensor = self.offset + self.scale * self.head(rows).float()
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


class PlaceHead(nn.Module):
    """A linear layer from each row to the values at its place."""

    def __init__(self, width: int, num_channels: int) -> None:
        super().__init__()
        self.values = Projection(width, num_channels)

    def forward(self, rows_BOE: Float[Tensor, "B O E"]) -> Float[Tensor, "B O c"]:
        """Return the values at each place."""
        out: Tensor = self.values(rows_BOE)
        return out


class UpsamplingHead(nn.Module):
    """The motion of coarse cells, and how much each pixel of a cell takes of the 3x3 cells around it.

    RAFT's convex upsampling (arXiv 2003.12039, section 3.3): the shares of a pixel add up to 1; beyond the edge nothing
    moves. Perceiver IO has it over 64 decoded channels (appendix H).
    """

    def __init__(self, width: int, size: tuple[int, int], factor: int, divisor: float) -> None:
        super().__init__()
        self.size, self.factor, self.divisor = size, factor, divisor
        self.values = ZeroLinear(width, 2)
        # A pixel's shares depend on all the cells that it takes from.
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


def flow_head(width: int, size: tuple[int, int], divisor: float) -> GridHead:
    """Return a linear layer from each row to the motion of its pixel; at first nothing moves."""
    return GridHead(ZeroLinear(width, 2), size, divisor)
