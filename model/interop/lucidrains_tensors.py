"""The tensors of perceiver-pytorch, brought to one layer each and to the order of channels that positions have here.

X.fn.to_kv.weight    keys, then values           ->  X.fn.to_k.weight, X.fn.to_v.weight
X.fn.net.0.*         values, then their gates    ->  X.fn.net.widen.*, X.fn.net.gate.*
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

_CUT = {
    "fn.to_kv.weight": ("fn.to_k.weight", "fn.to_v.weight"),
    "fn.net.0.weight": ("fn.net.widen.weight", "fn.net.gate.weight"),
    "fn.net.0.bias": ("fn.net.widen.bias", "fn.net.gate.bias"),
}
# Releases up to 0.8 had lists in lists.
_OLDER = {
    "Perceiver": (
        (r"^layers\.(\d+)\.0\.", r"layers.\1.cross_attn."),
        (r"^layers\.(\d+)\.1\.", r"layers.\1.cross_ff."),
        (r"^layers\.(\d+)\.2\.", r"layers.\1.self_attns."),
    ),
    "PerceiverIO": (
        (r"^cross_attend_blocks\.0\.", "cross_attend_block.cross_attn."),
        (r"^cross_attend_blocks\.1\.", "cross_attend_block.cross_ff."),
        (r"^layers\.(\d+)\.([01])\.", r"layers.\1.self_attns.0.\2."),
    ),
}
_OF_LM = "perceiver_io."
_OF_LAYER = re.compile(r"layers\.(\d+)\.(.*)")


def is_lucidrains(state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the names of perceiver-pytorch's."""
    return any(name.endswith(".fn.to_kv.weight") for name in state)


def kind_and_tensors(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Return the class that a state dict is of, and its tensors under the names of the newest release, cut."""
    kind = "PerceiverLM" if "token_emb.weight" in state else "Perceiver"
    names = {name: name.removeprefix(_OF_LM) for name in state}
    if any(name.startswith("decoder_cross_attn.") for name in names.values()):
        kind = "PerceiverLM" if kind == "PerceiverLM" else "PerceiverIO"
    older = _OLDER["Perceiver" if kind == "Perceiver" else "PerceiverIO"]
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = names[name]
        for pattern, replacement in older:
            new = re.sub(pattern, replacement, new)
        found.update(_cut(new, tensor))
    return kind, found


def _cut(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    end = next((each for each in _CUT if name.endswith(f".{each}")), None)
    if end is None:
        yield name, tensor
        return
    # Halves, and never copies: the order is that of its own chunk(2) at each use.
    yield from zip((name.removesuffix(end) + part for part in _CUT[end]), tensor.chunk(2), strict=True)


def without_ties(tensors: Mapping[str, Tensor], *, last: int) -> dict[str, Tensor]:
    """Return the tensors without those of layers after the `last`, whose weights they have; ValueError if not."""
    kept = {}
    for name, tensor in tensors.items():
        layer = _OF_LAYER.fullmatch(name)
        if layer is None or int(layer[1]) <= last:
            kept[name] = tensor
            continue
        tied = f"layers.{last}.{layer[2]}"
        # A state dict writes a shared tensor once under each name; that the values are equal is the only sign of it.
        if tied not in tensors or not torch.equal(tensors[tied], tensor):
            raise ValueError(f"weight_tie_layers: is true, but {name} is not equal to {tied}; set it to false")
    return kept


def fourier_as_here(
    tensors: Mapping[str, Tensor], num_channels: int, num_axes: int, num_bands: int
) -> dict[str, Tensor]:
    """Return the tensors that read tokens in the order of channels that tokens have here.

    there   channels, then of each axis its sines, its cosines and its place
    here    channels, then the places of all axes, their sines, their cosines
    """
    if not num_bands:
        return dict(tensors)
    axes = torch.arange(num_axes)[:, None] * (2 * num_bands + 1) + num_channels
    bands = torch.arange(num_bands)
    order = torch.cat(
        [torch.arange(num_channels), (axes + 2 * num_bands).flatten()]
        + [(axes + first + bands).flatten() for first in (0, num_bands)]
    )
    reading = re.compile(r"layers\.\d+\.cross_attn\.(norm_context\.(weight|bias)|fn\.to_[kv]\.weight)")
    return {
        # What has another width is named where shapes are compared.
        name: tensor[..., order] if reading.fullmatch(name) and tensor.shape[-1] == len(order) else tensor
        for name, tensor in tensors.items()
    }
