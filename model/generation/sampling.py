"""Drawing what comes next from logits, and continuing a stream with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.config.grids import Problems
from model.generation.continuation import Continuation
from model.outputs.autoregressive import AutoregressiveOutput
from model.perceiver import Perceiver

_LEAST_TEMPERATURE = 1e-9
"""Below it logits may become infinite, and the probabilities no numbers."""


@dataclass(frozen=True)
class Sampling:
    """How one of the answers is chosen."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely answer."""
    top_k: int = 0
    """Number of the most likely answers that are left to choose from; 0 for all."""
    top_p: float = 1.0
    """The fewest of the most likely answers with this probability in all are left to choose from."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        if self.temperature and not _LEAST_TEMPERATURE <= self.temperature < float("inf"):
            yield "temperature", f"must be 0, or a number from {_LEAST_TEMPERATURE:g} on, got {self.temperature}"
        if self.top_k < 0:
            yield "top_k", f"must be 0 or more, got {self.top_k}"
        if not 0 < self.top_p <= 1:
            yield "top_p", f"must be more than 0 and at most 1, got {self.top_p}"


def probabilities(logits: Float[Tensor, "*n V"], sampling: Sampling) -> Float[Tensor, "*n V"]:
    """Return the probabilities from which an answer is drawn, in float64 on the host."""
    # There and so: a device's own rounding of sums would make another text of the same seed.
    logits = logits.detach().double().cpu()
    if not sampling.temperature:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    parts = (logits / sampling.temperature).softmax(dim=-1)
    ordered, places = parts.sort(dim=-1, descending=True, stable=True)
    # What stands before an answer: the one that completes top_p is left.
    is_left = ordered.cumsum(dim=-1) - ordered < sampling.top_p
    if sampling.top_k:
        is_left[..., sampling.top_k :] = False
    left = torch.zeros_like(parts).scatter(-1, places, ordered * is_left)
    return left / left.sum(dim=-1, keepdim=True)


def draw(logits: Float[Tensor, "*n V"], sampling: Sampling, generator: torch.Generator) -> Int[Tensor, "*n"]:
    """Return an answer of each row of logits."""
    parts = probabilities(logits, sampling)
    return torch.multinomial(parts.flatten(0, -2), 1, generator=generator).view(parts.shape[:-1])


def continued(
    network: Perceiver,
    known: Tensor,
    num_places: int,
    *,
    sampling: Sampling,
    seed: int,
    never: Sequence[int] = (),
    keeps: bool = True,
    tell: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Return a batch of texts (B, L) or of cells (B, L, channels) with so many more places, drawn one by one.

    `never` are ids that are not drawn. `tell` is called with the number of places that were drawn.
    """
    (output,) = network.config.answers().values()
    assert isinstance(output, AutoregressiveOutput)
    generator = torch.Generator().manual_seed(seed)
    continuation = Continuation(network, keeps=keeps)
    for number in range(num_places):
        logits = continuation.next(known)
        if len(never):
            logits[..., torch.tensor(never, device=logits.device)] = -torch.inf
        drawn = draw(logits, sampling, generator)
        if output.stream.num_channels:
            # The middle of a level.
            drawn = output.lowest + (drawn + 0.5) * ((output.highest - output.lowest) / output.num_levels)
        known = torch.cat([known, drawn[:, None].to(known.device, known.dtype)], dim=1)
        tell(number + 1)
    return known
