"""Operations of the matrix products that a piece of work really makes, this network's own attention among them."""

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

import model.attention.wide  # noqa: F401  # which makes the operations known that are counted here

Shape = Sequence[int]


def operations(work: Callable[[], object]) -> dict[str, int]:
    """Return the operations by the name of what PyTorch was asked for; a Triton kernel counts none."""
    own = {torch.ops.perceiver.wide_attention: _forward, torch.ops.perceiver.wide_attention_backward: _backward}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        work()
    # As torch names them: aten.mm, perceiver.wide_attention.
    return {str(name).rpartition(".")[2]: flops for name, flops in counter.get_flop_counts().get("Global", {}).items()}


def _forward(q: Shape, k: Shape, v: Shape, *_: object, **_more: object) -> int:
    """Scores, and shares times values."""
    (heads, queries, width), keys = q, k[1]
    return 2 * heads * queries * keys * (width + v[-1])


def _backward(_grad: Shape, q: Shape, k: Shape, v: Shape, *_: object, **_more: object) -> int:
    """Scores again and the gradients of queries and keys; of shares and of values."""
    (heads, queries, width), keys = q, k[1]
    return 2 * heads * queries * keys * (3 * width + 2 * v[-1])
