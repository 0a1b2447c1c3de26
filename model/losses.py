"""Losses in float32, as sums with explicit counts: who divides knows over how many ranks and micro-batches.

B samples, C classes
"""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def cross_entropy_sum(
    logits_BC: Float[Tensor, "B C"],
    labels_B: Int[Tensor, " B"],
    weights_B: Float[Tensor, " B"],
    *,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the weighted sum of the cross-entropies of the samples with a label (not negative)."""
    losses_B = functional.cross_entropy(
        logits_BC.float(), labels_B.clamp(min=0), label_smoothing=smoothing, reduction="none"
    )
    return (losses_B * labelled(labels_B, weights_B)).sum()


def labelled(labels_B: Int[Tensor, " B"], weights_B: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the weight of every sample, 0 where it has no label; their sum is the count of the loss."""
    return weights_B * (labels_B >= 0)
