"""The heads of autoregression: from latents to what the stream has at their places.

B samples, N latents, D channels of a latent, V ids of a text, c channels of a cell, l levels of a value
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from model.outputs.modules.heads import TextHead
from model.parameters import Projection


class NextIdHead(nn.Module):
    """A norm, and the product with the embedding of the text."""

    def __init__(self, width: int, embedding_width: int, num_ids: int, embedding: Callable[[], Tensor]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Identity() if embedding_width == width else Projection(width, embedding_width)
        self.ids = TextHead(num_ids, embedding)

    def forward(self, latents_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N V"]:
        """Return the logits of every latent's place."""
        out: Tensor = self.ids(self.project(self.norm(latents_BND)))
        return out


class NextLevelHead(nn.Module):
    """A norm, and a linear layer to the levels of all channels of a cell, which are independent given what came
    before."""

    def __init__(self, width: int, num_channels: int, num_levels: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.norm = nn.LayerNorm(width)
        self.levels = Projection(width, num_channels * num_levels)

    def forward(self, latents_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N c l"]:
        """Return the logits of every latent's place."""
        out: Tensor = self.levels(self.norm(latents_BND))
        return out.view(*out.shape[:2], self.num_channels, -1)
