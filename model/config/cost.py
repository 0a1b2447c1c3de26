"""The cost of one part of a network, and the terms that all costs consist of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Parameters, and the operations of one sample's forward pass."""

    parameters: int = 0
    """Weights, counted once however often they are used."""
    flops: int = 0
    """Operations of one sample's forward pass."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameters + other.parameters, self.flops + other.flops)


def linear(inputs: int, outputs: int, rows: int = 0) -> Cost:
    """Return the cost of a linear layer that so many rows of a sample go through."""
    # A multiplication and an addition are two, as in the papers; the bias counts as a parameter only.
    return Cost(inputs * outputs + outputs, 2 * rows * inputs * outputs)


@dataclass(frozen=True)
class Kept:
    """What an adapter keeps of one sample for the backward pass, beside its tokens."""

    values: int = 0
    """Numbers of the precision of matrix products."""
    other_bytes: int = 0
    """Bytes of all else, such as places."""
    gradients: int = 0
    """Numbers that the backward pass of a convolution makes when all else but the tokens' gradients is gone."""

    def __add__(self, other: "Kept") -> "Kept":
        kept = self.values + other.values, self.other_bytes + other.other_bytes, self.gradients + other.gradients
        return Kept(*kept)
