"""The quality of an output, for evaluation: mean average precision and peak signal-to-noise ratio.

B samples, C classes
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def average_precision(scores_BC: Float[Tensor, "B C"], targets_BC: Bool[Tensor, "B C"]) -> Float[Tensor, " C"]:
    """Return the average precision of each class over all samples; NaN for a class that no sample has.

    The mean over a class' samples of the precision among those that score at least as high. Ties share the precision
    of their last, so that the order of the samples does not matter.
    """
    order_BC = scores_BC.argsort(dim=0, descending=True)
    sorted_BC, hits_BC = scores_BC.gather(0, order_BC), targets_BC.gather(0, order_BC)
    ranks = torch.arange(1, len(scores_BC) + 1, device=scores_BC.device)[:, None]
    precision_BC = hits_BC.cumsum(dim=0) / ranks
    ends_BC = torch.ones_like(hits_BC)
    ends_BC[:-1] = sorted_BC[:-1] != sorted_BC[1:]
    # From the end on, the smallest place of an end so far is that of the own tie.
    last_of_tie_BC = torch.where(ends_BC, ranks - 1, len(scores_BC)).flip(0).cummin(dim=0).values.flip(0)
    return (precision_BC.gather(0, last_of_tie_BC) * hits_BC).sum(dim=0) / hits_BC.sum(dim=0)


def peak_signal_to_noise(
    values: Float[Tensor, "B *n"], targets: Float[Tensor, "B *n"], *, peak: float
) -> Float[Tensor, " B"]:
    """Return each sample's ratio in decibels; `peak` is the range of the values: 1 for pixels, 2 for sound."""
    errors_B = (values.float() - targets.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(peak**2 / errors_B)
