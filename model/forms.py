"""In which form the latents read the tokens: all give the same numbers, at different costs.

plain      keys and values are projected from the tokens, once for all cross-attends that share them
absorbed   one head only: the projections and the norm's scale move to the latents, no array of M x F exists
separable  absorbed, for one grid with Fourier positions: tokens are not even put together

    M tokens, C their channels, N latents, F channels of keys and queries, V of values
"""

from typing import Literal

from model.config import PerceiverConfig

Form = Literal["plain", "absorbed", "separable"]

# Operations of a matrix product that take as long as one element's way through softmax, forward and backward, and as
# the additions and sums that the separable form makes of a product: measured on one core in float32 (docs/model.md).
SOFTMAX_ELEMENT = 230
SEPARABLE_ELEMENT = 320


def read_form(config: PerceiverConfig) -> Form:
    """Return the form that the config asks for, or the cheapest that the network can have."""
    if config.cross_attend_form != "auto":
        return config.cross_attend_form
    costs = read_costs(config)
    return min(costs, key=lambda form: costs[form])


def read_costs(config: PerceiverConfig) -> dict[Form, int]:
    """Return what all cross-attends' reading of one sample costs in training, in operations, for each form there is."""
    M, C, N = config.num_tokens, config.token_width, config.num_latents
    F, V = config.cross_attend.widths(C)
    modules = len({index for kind, index in config.schedule() if kind == "cross_attend"})
    reads = config.num_cross_attends
    # Three products of M x C in training for each projection; two forward and five backward for each score.
    plain = modules * 6 * M * C * (F + V) + reads * N * M * (7 * (F + V) + SOFTMAX_ELEMENT)
    costs: dict[Form, int] = {"plain": plain}
    moved = reads * 6 * N * C * (F + V)
    if config.cross_attend.num_heads == 1:
        token_gradients = 4 * C if config.tokens_learn else 0
        costs["absorbed"] = moved + reads * N * M * (10 * C + token_gradients + SOFTMAX_ELEMENT)
    if not config.separable_problem():
        costs["separable"] = moved + reads * N * M * SEPARABLE_ELEMENT
    return costs
