"""Where the latents look: attention of each cross-attend over the grid of each modality, as in the paper's figure 3."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from model.attention import CrossAttend
from model.config import PerceiverConfig
from model.inputs import Inputs, Tokens
from model.perceiver import Perceiver

_LATENTS_SHOWN = 8


@dataclass(frozen=True)
class AttentionMap:
    """The attention of one cross-attend."""

    cross_attend: int
    """Which of those that a sample passes, from 0; ones that share their weights still look elsewhere."""
    weights: dict[str, Tensor]
    """By modality (B, N, *grid): the share of each token, averaged over the heads; all of a latent add up to 1."""


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

    def note_shares(layer: CrossAttend, arguments: tuple[Tensor, Tensor, Tensor, Tensor | None], _: Tensor) -> None:
        queries, keys, _values, valid = arguments
        asked = layer.attention.heads(layer.attention.query(layer.norm_query(queries)))
        scores = asked @ keys.mT * asked.shape[-1] ** -0.5
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None, :], -torch.inf)
        # A sample without a valid token looks nowhere.
        shares.append(scores.softmax(dim=-1).nan_to_num(0.0).mean(dim=1))

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


def draw(maps: Sequence[AttentionMap], modality: str, sample: int, out: Path) -> None:
    """Draw a row a cross-attend and a column a latent for one sample; grids of other than two axes become one row."""
    latents = min(maps[0].weights[modality].shape[1], _LATENTS_SHOWN)
    figure = Figure(figsize=(1.4 * latents, 1.5 * len(maps)), layout="constrained")
    cells = figure.subplots(len(maps), latents, squeeze=False)
    for row, of_layer in zip(cells, maps, strict=True):
        for number, cell in enumerate(row):
            share = of_layer.weights[modality][sample, number]
            grid = share if share.dim() == 2 else share.reshape(1, -1)
            cell.imshow(grid.numpy(), cmap="gray", aspect="auto")
            cell.set(xticks=[], yticks=[], title=f"cross {of_layer.cross_attend}, latent {number}")
            cell.title.set_fontsize(7)
    beside = out.with_name(f".{out.name}")
    figure.savefig(beside, format="png", dpi=100)
    beside.replace(out)
