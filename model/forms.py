"""In which form the latents read the tokens: all give the same numbers, at different costs.

plain      keys and values are projected from the tokens, once for all cross-attends that share them
absorbed   one head only: the projections and the norm's scale move to the latents, no array of M x F exists
separable  absorbed, for one grid with Fourier positions: tokens are not even put together

    M tokens, C their channels, N latents, F channels of keys and queries, V of values
"""

from typing import Literal

from model.config import PerceiverConfig
from model.config_grids import PositionsConfig
from model.config_inputs import SpectrogramInput
from model.config_pixels import ImageInput, VideoInput

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
        token_gradients = 4 * C if tokens_learn(config) else 0
        costs["absorbed"] = moved + reads * N * M * (10 * C + token_gradients + SOFTMAX_ELEMENT)
    if not separable_problem(config):
        costs["separable"] = moved + reads * N * M * SEPARABLE_ELEMENT
    return costs


def form_problem(config: PerceiverConfig) -> str | None:
    """Return why the form that the config asks for is impossible, if it is."""
    if config.cross_attend_form in ("absorbed", "separable") and config.cross_attend.num_heads != 1:
        return f"needs cross_attend.num_heads=1, got {config.cross_attend.num_heads}; use auto"
    return separable_problem(config) if config.cross_attend_form == "separable" else None


def separable_problem(config: PerceiverConfig) -> str | None:
    """Return why tokens must be put together, if they must."""
    if config.cross_attend.num_heads != 1:
        return f"needs cross_attend.num_heads=1, got {config.cross_attend.num_heads}; use auto"
    modalities = list(config.inputs.chosen().values())
    if len(modalities) != 1 or not isinstance(modalities[0], ImageInput | VideoInput | SpectrogramInput):
        return "needs one image, video or spectrogram and nothing beside it; use auto"
    if modalities[0].positions.kind != "fourier":
        return f"needs Fourier positions, got {modalities[0].positions.kind}; use auto"
    if tokens_learn(config):
        return "needs tokens without parameters: no projection, convolution or mask tokens; use auto"
    return None


def tokens_learn(config: PerceiverConfig) -> bool:
    """Return whether the tokens depend on parameters, so that the backward pass must reach them."""
    modalities = list(config.inputs.chosen().values())
    if len(modalities) > 1 or config.mask_tokens:
        return True
    positions: PositionsConfig | None = getattr(modalities[0], "positions", None)
    learned = positions is not None and positions.kind == "learned"
    layers = getattr(modalities[0], "project_to", 0) or getattr(modalities[0], "conv_stem", False)
    return bool(learned or layers or hasattr(modalities[0], "vocabulary"))
