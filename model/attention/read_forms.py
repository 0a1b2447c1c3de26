"""The forms of the cross-attention to the tokens: equal results at different costs.

plain      keys and values are projected from the tokens, once for all cross-attends that share them
absorbed   one head only: the projections and the norm's scale move to the latents, no array of M x F exists
separable  absorbed, for one grid with Fourier positions: tokens are not even put together

    form        needs                                            in memory for a sample
    plain       nothing                                          M x C tokens, M x (F + V) keys and values
    absorbed    one head                                         M x C tokens
    separable   one head, one grid with Fourier positions,       M x 5 for RGB: content, mean and deviation
                no parameters before the tokens

The choice depends on the configuration and the kind of device, never on a measurement at the start: another form rounds
differently, and a resumed run must compute as before.

    M tokens, C their channels, N latents, F channels of keys and queries, V of values
"""

from typing import Literal

import torch

from model.attention.absorbed.grid_support import kernel_problem, triton_version
from model.attention.absorbed.grid_tiles import tile_of
from model.attention.kernel_choice import MOST_FLASH_CHANNELS
from model.attention.read_costs import READ_CONSTANTS, DeviceKind
from model.config.perceiver import PerceiverConfig

Form = Literal["plain", "absorbed", "separable"]


class FormByDevice:
    """The form of a network, decided for each kind of device when it first reads there."""

    def __init__(self, config: PerceiverConfig) -> None:
        self._config = config
        self._forms: dict[str, Form] = {"cpu": read_form(config)}

    def __call__(self, device: torch.device) -> Form:
        """Return the form on a device."""
        if device.type not in self._forms:
            self._forms[device.type] = read_form(self._config, device)
        return self._forms[device.type]


def read_form(config: PerceiverConfig, device: torch.device | str = "cpu") -> Form:
    """Return the form that the config asks for, or the cheapest that the network can have on a device."""
    if config.cross_attend_form != "auto":
        return config.cross_attend_form
    costs = read_costs(config, device)
    return min(costs, key=lambda form: costs[form])


def read_costs(config: PerceiverConfig, device: torch.device | str = "cpu") -> dict[Form, int]:
    """Return what all cross-attends' reading of one sample costs in training, in operations, for each form there is."""
    constants = READ_CONSTANTS[_kind(config, torch.device(device))]
    M, C, N = config.num_tokens, config.token_width, config.num_latents
    F, V = config.cross_attend.widths(C)
    modules = len({index for kind, index in config.schedule() if kind == "cross_attend"})
    reads = config.num_cross_attends
    # Three products of M x C in training for each projection; two forward and five backward for each score.
    scores = reads * N * M
    # The widths are of all heads together, the kernel's limit is that of one.
    is_wide = max(F, V) > MOST_FLASH_CHANNELS * config.cross_attend.num_heads
    softmax, slowness = (
        (constants.wide, constants.wide_products) if is_wide else (constants.plain, constants.plain_products)
    )
    plain = modules * 6 * M * C * (F + V) + scores * (7 * (F + V) * slowness + softmax)
    costs: dict[Form, int] = {"plain": round(plain)}
    moved = reads * 6 * N * C * (F + V)
    # The other forms hide the same tokens from all latents.
    if not config.absorbed_problem():
        token_gradients = 4 * C if config.tokens_learn else 0
        products = (10 * C + token_gradients) * constants.absorbed_products
        costs["absorbed"] = round(moved + scores * (products + constants.absorbed))
    if not config.separable_problem():
        costs["separable"] = moved + scores * constants.separable
    return costs


def reading(config: PerceiverConfig, device: torch.device | str = "cpu") -> str:
    """Return a sentence on the form of cross-attention on a device, and why it does not use the kernel."""
    device = torch.device(device)
    form = read_form(config, device)
    sentence = f"latents read the tokens in the {form} form"
    if device.type != "cuda" or config.separable_problem():
        return sentence
    problem = _kernel_problem(config, device)
    if form == "separable":
        if problem:
            return f"{sentence}, tile by tile: {problem}"
        return f"{sentence}, by the kernel of Triton {triton_version() or 'with PyTorch for CUDA'}{_tile(device)}"
    return f"{sentence}; the separable form has no kernel here: {problem}" if problem else sentence


def _kind(config: PerceiverConfig, device: torch.device) -> DeviceKind:
    if device.type != "cuda":
        return "cpu"
    has_kernel = config.separable_problem() or not _kernel_problem(config, device)
    return "cuda" if has_kernel else "cuda without kernel"


def _kernel_problem(config: PerceiverConfig, device: torch.device) -> str | None:
    (modality,) = config.ordered_inputs.values()
    # The mean is one more channel of the content.
    return kernel_problem(device, modality.content_width + 1, config.num_latents)


def _tile(device: torch.device) -> str:
    """The tile of a GPU that is here: like the version, it decides how sums are rounded."""
    if not torch.cuda.is_available():
        return ""
    tile = tile_of(device)
    return f" in tiles of {tile.columns} columns and {tile.queries} queries"
