"""Losses in float32, as sums with explicit counts. The caller divides, over all ranks and micro-batches.

Every loss takes a weight for each of its terms; the count that it is divided by is the sum of those weights.

    B samples, C classes, n the axes of the terms
"""

from typing import Literal

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
    # A negative label stands for none. PyTorch wants a class all the same, whose loss gets the weight 0 below.
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
    logits_BC: Float[Tensor, "B C"],
    targets_BC: Float[Tensor, "B C"],
    weights_B: Float[Tensor, " B"],
    class_weights_C: Float[Tensor, " C"] | None = None,
) -> Float[Tensor, ""]:
    """Return the weighted sum over samples of the mean over classes: classes that do not exclude each other."""
    losses_BC = functional.binary_cross_entropy_with_logits(logits_BC.float(), targets_BC.float(), reduction="none")
    if class_weights_C is None:
        return (losses_BC.mean(dim=-1) * weights_B).sum()
    return ((losses_BC * class_weights_C).sum(dim=-1) / class_weights_C.sum() * weights_B).sum()


def absolute_error_sum(
    values: Float[Tensor, "B *n"], targets: Float[Tensor, "B *n"], weights_B: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum over samples of the mean absolute error: autoencoded sound and pictures."""
    return ((values.float() - targets.float()).abs().flatten(1).mean(dim=1) * weights_B).sum()


def squared_error_sum(
    values: Float[Tensor, "B *n"], targets: Float[Tensor, "B *n"], weights_B: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum over samples of the mean squared error."""
    return ((values.float() - targets.float()).square().flatten(1).mean(dim=1) * weights_B).sum()


def regression_error_sum(
    values_BK: Float[Tensor, "B K"],
    targets_BK: Float[Tensor, "B K"],
    weights_B1: Float[Tensor, "B 1"],
    *,
    scale: float,
    loss: Literal["squared", "absolute", "huber"],
    delta: float,
) -> Float[Tensor, ""]:
    """Return the weighted sum of the errors of the numbers that are known, in units of `scale`; others are NaN.

    Half the square for huber below `delta`, so that value and slope join; the whole square for squared.
    """
    known_BK = targets_BK.isfinite()
    # Not a product with 0: the gradient of NaN times 0 is NaN.
    errors_BK = torch.where(known_BK, values_BK.float() - targets_BK.float(), 0.0).abs() / scale
    if loss == "squared":
        errors_BK = errors_BK.square()
    elif loss == "huber":
        errors_BK = torch.where(errors_BK < delta, 0.5 * errors_BK.square(), delta * (errors_BK - 0.5 * delta))
    return (errors_BK * weights_B1).sum()


def end_point_error_sum(
    flow: Float[Tensor, "B H W 2"], target: Float[Tensor, "B H W 2"], weights_B: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the weighted sum over samples of the mean distance between predicted and true motion.

    The mean is over the pixels whose motion is known; the others' is NaN.
    """
    known_BHW = target.isfinite().all(dim=-1)
    # Before the distance and not after it: the gradient of NaN times 0 is NaN.
    target = torch.where(known_BHW[..., None], target.float(), 0)
    distances_BHW: Tensor = torch.linalg.vector_norm(flow.float() - target, dim=-1) * known_BHW
    # At least 1: a pair of which no motion is known has no error, and must not give 0/0.
    means_B: Tensor = distances_BHW.flatten(1).sum(dim=1) / known_BHW.flatten(1).sum(dim=1).clamp(min=1)
    return (means_B * weights_B).sum()
