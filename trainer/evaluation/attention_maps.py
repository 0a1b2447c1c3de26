"""Attention maps: the attention weights of each cross-attend over each modality's grid, as in the paper's figure 3."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from data_shards.files import atomic
from data_shards.modalities.drawing import draw_picture
from model.attention.layers import CrossAttend
from model.attention.rotary import rotated
from model.config.perceiver import PerceiverConfig
from model.modalities.byte_array import Inputs, Tokens
from model.perceiver import Perceiver

_LATENTS_SHOWN = 8


@dataclass(frozen=True)
class AttentionMap:
    """The attention of one cross-attend."""

    cross_attend: int
    """The index of the cross-attend, from 0; cross-attends with shared weights still have different attention."""
    weights: dict[str, Tensor]
    """The attention weights by modality (B, N, *grid), averaged over the heads; those of a latent add up to 1."""


def readable(config: PerceiverConfig, weights: dict[str, Tensor]) -> Perceiver:
    """Return the network of these weights in the form that makes its attention weights on the way."""
    network = Perceiver(
        replace(config, cross_attend_form="plain", activation_checkpointing="none", compile=False), seed=0
    )
    network.load_state_dict(weights)
    return network.eval()


@torch.no_grad()
def attention_maps(network: Perceiver, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> list[AttentionMap]:
    """Return the maps of every cross-attend of a network from `readable`, in the order in which they are passed."""
    shares: list[Tensor] = []
    spans: dict[str, tuple[int, int]] = {}

    def note_spans(_: Inputs, __: object, tokens: Tokens) -> None:
        spans.update(tokens.spans)

    def note_shares(layer: CrossAttend, arguments: tuple[Any, ...], _: Tensor) -> None:
        queries, keys, _values, valid, *others = arguments
        # Computed again from what the layer was called with: it returns no weights.
        asked = layer.attention.queries(layer.norm_query(queries))
        # Of a stream with rotary positions the last argument has those of the latents.
        asked = rotated(asked, others[-1]) if others and others[-1] is not None else asked
        scores = asked @ keys.mT * layer.attention.scale
        if valid is not None:
            # Those that are there, or of a stream those that each latent sees.
            seen = valid[:, None, None, :] if valid.dim() == 2 else valid[:, None]
            scores = scores.masked_fill(~seen, -torch.inf)
        # A sample without a valid token attends to nothing.
        share = scores.softmax(dim=-1).nan_to_num(0.0).mean(dim=1)
        # A place of a stream has the token before it, and the last token has no place.
        shares.append(functional.pad(share[..., 1:], (0, 1)) if network.config.stream else share)

    layers = [layer for layer in network.encoder.cross_attends if isinstance(layer, CrossAttend)]
    hooks = [layer.register_forward_hook(note_shares) for layer in layers]
    hooks.append(network.inputs.register_forward_hook(note_spans))
    try:
        network(inputs, lengths)
    finally:
        for hook in hooks:
            hook.remove()
    grids = {name: modality.grid for name, modality in network.inputs.modalities.items()}
    return [
        AttentionMap(
            index,
            {name: share[..., slice(*spans[name])].reshape(*share.shape[:2], *grid) for name, grid in grids.items()},
        )
        for index, share in enumerate(shares)
    ]


def draw(maps: Sequence[AttentionMap], modality: str, sample: int, values: np.ndarray, out: Path) -> None:
    """Draw one row per cross-attend for one sample: its values in this modality, then some latents' attention weights.

    Of clips the middle frame is shown; a grid of one axis becomes a row.
    """
    latents = min(maps[0].weights[modality].shape[1], _LATENTS_SHOWN)
    figure = Figure(figsize=(1.4 * (latents + 1), 1.5 * len(maps)), layout="constrained")
    cells = figure.subplots(len(maps), latents + 1, squeeze=False)
    for (beside_it, *row), of_layer in zip(cells, maps, strict=True):
        _show(beside_it, values)
        beside_it.set_title("input", fontsize=7)
        for number, cell in enumerate(row):
            share = of_layer.weights[modality][sample, number]
            grid = (share[len(share) // 2] if share.dim() == 3 else share).numpy()
            is_picture = grid.ndim == 2
            cell.imshow(
                grid if is_picture else grid.ravel()[None], cmap="gray", aspect="equal" if is_picture else "auto"
            )
            cell.set_title(f"cross {of_layer.cross_attend}, latent {number}", fontsize=7)
    for cell in cells.ravel():
        cell.set(xticks=[], yticks=[])
    with atomic.written_beside(out, survives_power_cut=False) as file:
        figure.savefig(file, format="png", dpi=100)


def _show(cell: Axes, values: np.ndarray) -> None:
    """Show a picture (H, W, channels), the middle frame of a clip (T, H, W, 3), or anything else as a curve."""
    if values.ndim > 2:
        draw_picture(cell, values[len(values) // 2] if values.ndim > 3 else values)
    else:
        cell.plot(values.ravel(), linewidth=0.3)
