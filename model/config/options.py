"""What the options beyond the papers' network ask of the rest of it. Standard library only."""

from collections.abc import Mapping, Sequence
from typing import Literal

from model.config.attention import AttentionConfig
from model.config.grids import Problems

Arrangement = Literal["interleaved", "at_start", "first_blocks"]
_MOST_LAYERS = 100_000
"""More are a slip of the hand, and to list them would take hours."""


def read_places(arrangement: Arrangement, num_cross_attends: int, num_blocks: int) -> list[int]:
    """Return for each cross-attend the block that it comes before."""
    order = range(num_cross_attends)
    # In whole numbers, so that the first one always comes before the first block.
    spread = {"interleaved": [index * num_blocks // num_cross_attends for index in order], "first_blocks": list(order)}
    return spread.get(arrangement, [0] * num_cross_attends)


def schedule_problems(
    arrangement: Arrangement, num_cross_attends: int, num_blocks: int, layers_per_block: int
) -> Problems:
    """Yield (key, sentence) of more layers than can be, and of cross-attends that have no block to come before."""
    num_layers = num_blocks * layers_per_block
    if num_layers > _MOST_LAYERS:
        yield "num_blocks", f"makes {num_layers} layers of self-attention, at most {_MOST_LAYERS} can be"
    if num_cross_attends > _MOST_LAYERS:
        yield "num_cross_attends", f"must be at most {_MOST_LAYERS}, got {num_cross_attends}"
    if arrangement == "first_blocks" and num_cross_attends > max(num_blocks, 1):
        yield (
            "arrangement",
            f"is first_blocks, a cross-attend before each of the first blocks, with {num_cross_attends} of them for "
            f"{num_blocks} blocks; lower num_cross_attends, or take another arrangement",
        )


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
        # Latents have one axis, their number.
        needed = max(axes.values()) if part == "cross_attend" else 1
        without = [name for name, count in axes.items() if not count]
        if part not in ("self_attend", "cross_attend"):
            yield f"{part}.rotary", "has no places of queries and latents on the same axes; leave it out"
        elif part == "cross_attend" and without:
            yield f"{part}.rotary", f"needs places on axes, which inputs.{without[0]} has not; leave it out"
        elif attention.num_pairs(width) < needed:
            found = f"{attention.num_pairs(width) * 2} of them for {needed} axes"
            yield f"{part}.rotary", f"turns two channels of a head for each axis, got {found}; raise qk_width"
