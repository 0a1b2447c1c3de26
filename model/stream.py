"""The causal form of the encoder, Perceiver AR (arXiv 2202.07765): the latents are the last places of a stream.

    stream     x0     x1     x2     x3     x4     x5
    places     start  x0     x1     x2     x3     x4          each place has the token before it
    latents                         l3     l4     l5          of the last places
    see        0..p   of the places, and no later latents
    answer                          x3     x4     x5

A latent begins as the token of its place, reads all places up to its own, and answers what the stream has there. So no
answer depends on itself or on what follows it, and one pass answers as many places as there are latents.

    B samples, M places, N latents, C channels of a token, D channels of a latent
    b: B, or 1 where all samples are alike
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from model.config.perceiver import PerceiverConfig
from model.modalities.byte_array import Tokens
from model.parameters import Projection, Table


def last_places(count_B: Int[Tensor, " b"], num_latents: int) -> Int[Tensor, "b N"]:
    """Return the places of the latents of streams of so many tokens: the last ones, or all and some after the end."""
    first_B = (count_B - num_latents).clamp(min=0)
    return first_B[:, None] + torch.arange(num_latents, device=count_B.device)


class StreamLatents(nn.Module):
    """Makes latents of the last places, and says what each of them sees."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.num_latents = config.num_latents
        self.start = Table(1, config.token_width, ())
        is_wide = config.token_width == config.latent_width
        self.project = nn.Identity() if is_wide else Projection(config.token_width, config.latent_width)

    @property
    def weight(self) -> Tensor:
        """The token of the first place, before which the stream has nothing."""
        return self.start.weight

    def placed(self, tokens_BMC: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """Return the token of every place: that of the place before it."""
        # Moved by one place: a place that had its own token would answer by copying it.
        start = self.start.weight.to(tokens_BMC.dtype).expand(len(tokens_BMC), 1, -1)
        return torch.cat([start, tokens_BMC[:, :-1]], dim=1)

    def forward(
        self, tokens: Tokens, hidden_BM: Bool[Tensor, "B M"] | None = None
    ) -> tuple[Float[Tensor, "B N D"], Tokens]:
        """Return the latents, and the tokens at their places with which each latent sees as their `valid`.

        Tokens that are hidden are seen by no latent, but for those at the latents' own places.
        """
        placed_BMC = self.placed(tokens.values)
        num_places = placed_BMC.shape[1]
        N = min(self.num_latents, num_places)
        if tokens.valid is None:
            places_bN = torch.arange(num_places - N, num_places, device=placed_BMC.device)[None]
            first_BNC = placed_BMC[:, num_places - N :]
        else:
            places_bN = last_places(tokens.valid.sum(dim=1), N)
            # By index and not by gather(), whose gradient adds in any order on a GPU.
            first_BNC = placed_BMC[torch.arange(len(placed_BMC), device=places_bN.device)[:, None], places_bN]
        places_M = torch.arange(num_places, device=placed_BMC.device)
        seen_bNM = places_M <= places_bN[..., None]
        if hidden_BM is not None:
            # A token stands one place after its own.
            is_hidden = functional.pad(hidden_BM[:, : num_places - 1], (1, 0)) & (places_M < places_bN[:, :1])
            seen_bNM = seen_bNM & ~is_hidden[:, None]
        latents_BND: Tensor = self.project(first_BNC)
        return latents_BND, replace(tokens, parts=placed_BMC, valid=seen_bNM, latents_at=places_bN)
