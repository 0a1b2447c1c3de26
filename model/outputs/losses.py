"""Losses in float32, as sums with explicit counts: who divides knows over how many ranks and micro-batches.

Every loss takes a weight for each of its terms; the count that it is divided by is the sum of those weights.

    B samples, C classes, n the axes of the terms
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def cross_entropy_sum(
    logits: Float[Tensor, "*n C"], labels: Int[Tensor, "*n"], weights: Float[Tensor, "*n"], *, smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Return the weighted sum of the cross-entropies of classes; a negative label has none.

    Classification, masked language modelling (weights: 1 where a byte was hidden) and autoencoded labels.
    """
    losses = functional.cross_entropy(
        logits.flatten(0, -2).float(), labels.flatten().clamp(min=0), label_smoothing=smoothing, reduction="none"
    )
    return (losses * labelled(labels, weights).flatten()).sum()


def labelled(labels: Int[Tensor, "*n"], weights: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the weight of every term, 0 where it has no label; their sum is the count of the loss."""
    return weights * (labels >= 0)


def soft_cross_entropy_sum(
    logits_BC: Float[Tensor, "B C"], targets_BC: Float[Tensor, "B C"], weights_B: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum of the cross-entropies of targets that are distributions, as mixup makes them."""
    losses_B = -(targets_BC.float() * logits_BC.float().log_softmax(dim=-1)).sum(dim=-1)
    return (losses_B * weights_B).sum()


def binary_cross_entropy_sum(
    logits_BC: Float[Tensor, "B C"], targets_BC: Float[Tensor, "B C"], weights_B: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum over samples of the mean over classes: classes that do not exclude each other."""
    losses_BC = functional.binary_cross_entropy_with_logits(logits_BC.float(), targets_BC.float(), reduction="none")
    return (losses_BC.mean(dim=-1) * weights_B).sum()


def absolute_error_sum(
    values: Float[Tensor, "B *n"], targets: Float[Tensor, "B *n"], weights_B: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum over samples of the mean absolute error: autoencoded sound and pictures."""
    return ((values.float() - targets.float()).abs().flatten(1).mean(dim=1) * weights_B).sum()


def end_point_error_sum(
    flow: Float[Tensor, "B H W 2"], target: Float[Tensor, "B H W 2"], weights_B: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum over samples of the mean distance between predicted and true motion.

    The mean is over the pixels whose motion is known; the others' is NaN.
    """
    known_BHW = target.isfinite().all(dim=-1)
    target = torch.where(known_BHW[..., None], target.float(), 0)
    distances_BHW: Tensor = torch.linalg.vector_norm(flow.float() - target, dim=-1) * known_BHW
    means_B: Tensor = distances_BHW.flatten(1).sum(dim=1) / known_BHW.flatten(1).sum(dim=1).clamp(min=1)
    return (means_B * weights_B).sum()
