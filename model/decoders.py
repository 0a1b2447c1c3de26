"""Latents -> answers."""

from jaxtyping import Float
from torch import Tensor, nn

from model.parameters import ZeroLinear


class MeanClassifier(nn.Module):
    """The mean of the latents and one linear layer: the head of the first paper, with no norm before it."""

    def __init__(self, latent_width: int, num_classes: int) -> None:
        super().__init__()
        self.logits = ZeroLinear(latent_width, num_classes)

    def forward(self, latents_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B C"]:
        """Return the logits of each sample."""
        out: Tensor = self.logits(latents_BND.mean(dim=1))
        return out
