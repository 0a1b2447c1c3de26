"""Dropout and stochastic depth: what a training step drops is arithmetic on two numbers of each sample.

    two numbers of a sample --[number of the layer, branch]--> its stream --[row, channel]--> 32 bits, dropped if low

No generator is involved. A layer that is computed again, compiled, or computed on another rank or device therefore
drops the same values, and so does a resumed run.

B samples, N rows (latents or queries), D channels, L layers; a layer has two branches, attention and MLP
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

ATTENTION, MLP = 0, 1
_BITS = 0xFFFF_FFFF


class LayerDraws(NamedTuple):
    """What a layer draws for each sample."""

    streams_B2: Int[Tensor, "B 2"]  # noqa: N815
    """The stream of each branch, from which dropout draws."""
    factors_B2: Float[Tensor, "B 2"] | None  # noqa: N815
    """The factor of each branch: 0 where it is skipped, else what keeps the expectation; None where all count."""


def layer_draws(
    draws_B2: Int[Tensor, "B 2"], num_layers: int, *, first: int = 0, drop_path: float = 0.0
) -> list[LayerDraws]:
    """Return the draws of consecutive layers, the first of which has the number `first`.

    Stochastic depth skips a branch with a probability that rises linearly, from 0 in the first of these layers to
    `drop_path` in the last (Huang et al., 2016).
    """
    numbers_L2 = torch.arange(2 * first, 2 * (first + num_layers), device=draws_B2.device).view(num_layers, 1, 2)
    streams_LB2 = mixed((mixed(draws_B2[:, :1] ^ mixed(numbers_L2)) + draws_B2[:, 1:]) & _BITS)
    if not drop_path:
        return [LayerDraws(streams_B2, None) for streams_B2 in streams_LB2]
    rates_L11 = torch.linspace(0, drop_path, num_layers, device=draws_B2.device)[:, None, None]
    # Mixed once more: the bits of the streams themselves begin the rows of dropout.
    is_kept_LB2 = mixed(streams_LB2 ^ _BITS) * 2.0**-32 >= rates_L11
    factors_LB2 = is_kept_LB2 / (1 - rates_L11)
    return [LayerDraws(*each) for each in zip(streams_LB2, factors_LB2, strict=True)]


def dropped(
    values_BND: Float[Tensor, "B N D"], draws: LayerDraws | None, branch: int, rate: float
) -> Float[Tensor, "B N D"]:
    """Return what a branch adds to the stream: with values dropped at this rate, and none of it where it is skipped."""
    if draws is None:
        return values_BND
    if rate:
        _, num_rows, width = values_BND.shape
        is_kept_BND = kept(draws.streams_B2[:, branch], num_rows, width, rate)
        # Of all this only the mask is held for the backward pass, a byte for each value.
        values_BND = torch.where(is_kept_BND, values_BND * (1 / (1 - rate)), 0.0)
    if draws.factors_B2 is not None:
        values_BND = values_BND * draws.factors_B2[:, branch, None, None].to(values_BND.dtype)
    return values_BND


def kept(streams_B: Int[Tensor, " B"], num_rows: int, width: int, rate: float) -> Tensor:
    """Return which values dropout keeps, (B, N, D) bool; of fewer rows they are the first of those of more."""
    numbers = torch.arange(max(num_rows, width), device=streams_B.device)
    # One round for each value: the rows are well mixed by then, and the channels of a row are all different.
    rows_BN = mixed((streams_B[:, None] + mixed(numbers[:num_rows])) & _BITS)
    return mixed(rows_BN[..., None] ^ mixed(numbers[:width])) >= round(rate * 2**32)


def mixed(bits: Int[Tensor, "*S"]) -> Int[Tensor, "*S"]:
    """Return 32 well mixed bits for 32 bits, in int64: a bijection, as in the finalizers of hash functions.

    The shifts and factors are those of https://github.com/skeeto/hash-prospector with the least bias.
    """
    # Factors below 2^31: no product exceeds int64, so that every device and compiler gives the same bits.
    bits = ((bits ^ (bits >> 16)) * 0x21F0_AAAD) & _BITS
    bits = ((bits ^ (bits >> 15)) * 0x735A_2D97) & _BITS
    return bits ^ (bits >> 15)
