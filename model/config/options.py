"""What the options beyond the papers' network ask of the rest of it. Standard library only."""

from collections.abc import Mapping, Sequence

from model.config.attention import AttentionConfig
from model.config.grids import Problems


def drop_problems(dropout: float, drop_path: float, num_layers: int) -> Problems:
    """Yield (key, sentence) of rates that are none, and of stochastic depth without a layer that it could skip."""
    for key, rate in (("dropout", dropout), ("drop_path", drop_path)):
        if not 0 <= rate < 1:
            yield key, f"must be at least 0 and below 1, got {rate}; 0 drops nothing"
    if drop_path and num_layers == 1:
        yield "drop_path", "skips nothing of the first cross-attend, and there is no other layer; leave it out"


def nested_problems(sizes: Sequence[int], num_latents: int, stream: str) -> Problems:
    """Yield (key, sentence) of sizes of the latent array that cannot be nested in each other."""
    if not sizes:
        return
    if len(sizes) < 2 or sizes[0] < 1 or sorted(set(sizes)) != list(sizes):
        yield "nested_latents", f"must be two or more rising numbers from 1, got {list(sizes)}; empty for one size"
    elif sizes[-1] != num_latents:
        yield "nested_latents", f"must end with num_latents, which is {num_latents}, got {list(sizes)}"
    elif stream:
        yield "nested_latents", f"has no set of latents to take a part of: they are the last places of inputs.{stream}"


def rotary_problems(attentions: Mapping[str, tuple[AttentionConfig, int]], axes: Mapping[str, int]) -> Problems:
    """Yield (key, sentence) of rotary positions where there are no places, or too few channels to turn by them.

    `attentions` has each attention with the width of what it attends to, `axes` the number of axes of each input's
    places, 0 where they are coordinates or a set.
    """
    for part, (attention, width) in attentions.items():
        if not attention.rotary or attention.num_heads < 1:
            continue
        needed = max(axes.values()) if part == "cross_attend" else 1
        without = [name for name, count in axes.items() if not count]
        if part not in ("self_attend", "cross_attend"):
            yield f"{part}.rotary", "has no places of queries and latents on the same axes; leave it out"
        elif part == "cross_attend" and without:
            yield f"{part}.rotary", f"needs places on axes, which inputs.{without[0]} has not; leave it out"
        elif attention.num_pairs(width) < needed:
            found = f"{attention.num_pairs(width) * 2} of them for {needed} axes"
            yield f"{part}.rotary", f"turns two channels of a head for each axis, got {found}; raise qk_width"
