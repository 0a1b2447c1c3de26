"""Activation checkpointing: the policy for what the backward pass recomputes instead of storing.

All by non-reentrant checkpointing, which alone is exact at every ZeRO stage when a module runs several times in a pass.

    policy      keeps                                           computes again
    none        all that autograd keeps                         nothing
    selective   results of matrix products and attention        norms, GELU, residual sums, softmax
    layers      the input of each layer                         each layer
    blocks      the input of each block                         each block
    offload     the input of each block, in the host's memory   each block
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from model.config.perceiver import ActivationCheckpointing
from model.training.offload import Offload, SideStream

Layer = Callable[..., Tensor]
Run = Callable[..., Tensor]

# Matrix products and fused attention: dear to compute again; the element-wise work between them is not.
_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_addmm_activation"})
_ATTENTION = frozenset(
    {
        "aten::_flash_attention_forward",
        "aten::_efficient_attention_forward",
        "flex_attention",
        "perceiver::wide_attention",
    }
)
# What scaled_dot_product_attention becomes, by device, shapes and version of PyTorch: flash, efficient, cudnn, ...
_SCALED_DOT_PRODUCT = "aten::_scaled_dot_product_"


def run_block(policy: ActivationCheckpointing) -> Run:
    """Return how a block is run: `run(block, latents)` is the block's output."""
    return {"none": kept, "layers": kept, "blocks": recomputed, "selective": selective, "offload": offloaded}[policy]


def run_layer(policy: ActivationCheckpointing) -> Run:
    """Return how a layer of a block is run."""
    return recomputed if policy == "layers" else kept


def run_cross_attend(policy: ActivationCheckpointing, *, absorbed: bool) -> Run:
    """Return how a cross-attend is run; one that absorbs its projections keeps no more than its products anyway."""
    # Its hand-written backward pass recomputes the scores already; recomputed as a whole it would do so twice.
    if policy == "selective" and absorbed:
        return kept
    return recomputed if policy == "layers" else run_block(policy)


def kept(layer: Layer, *inputs: object) -> Tensor:
    """Return the layer's output, keeping what autograd keeps."""
    return layer(*inputs)


def recomputed(layer: Layer, *inputs: object) -> Tensor:
    """Return the layer's output, keeping its inputs only."""
    # No generators are kept: what a layer drops follows from its arguments (model/training/dropout.py).
    out: Tensor = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def selective(layer: Layer, *inputs: object) -> Tensor:
    """Return the layer's output, keeping the results of matrix products and computing the rest again."""
    _count_no_casts()
    out: Tensor = checkpoint(
        layer,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, _keep_products),
    )
    return out


def offloaded(layer: Layer, *inputs: object) -> Tensor:
    """Return the layer's output, keeping its inputs only, and those in the host's memory."""
    device = next(value.device for value in inputs if isinstance(value, Tensor))
    host: AbstractContextManager[object] = torch.autograd.graph.save_on_cpu()
    if device.type == "cuda":
        offload = _offload(device)
        host = torch.autograd.graph.saved_tensors_hooks(offload.pack, offload.unpack)
    with host:
        return recomputed(layer, *inputs)


@cache
def _count_no_casts() -> None:
    """Have PyTorch cast again without counting casts.

    It expects the same operations when a layer is computed again. But autocast casts a weight once for all uses of it,
    which shared layers have several of: whether a layer casts, or finds its weights cast, is not the same both times.
    Casts of their own for each use would sum a weight's gradients in fp32 and not in half precision: other bits than
    without a policy.
    """
    SAC_IGNORED_OPS.add(torch.ops.aten._to_copy.default)


@cache
def _offload(device: torch.device) -> Offload:
    """One a device: what a layer kept is fetched while the layer after it is at work, whichever kinds they are."""
    return Offload(SideStream(device))


def _keep_products(_context: object, operation: object, *_inputs: object, **_options: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if is_dear(operation) else CheckpointPolicy.PREFER_RECOMPUTE


@cache
def is_dear(operation: Any) -> bool:  # noqa: ANN401  # PyTorch's operations have no common type
    """Return whether an operation is a matrix product or an attention, whose result `selective` keeps.

    An operation with an output argument is neither: its result may be overwritten before it is needed.
    """
    name = operation.name()
    is_attention = name.startswith(_SCALED_DOT_PRODUCT) and "backward" not in name
    return name in _PRODUCTS or name in _ATTENTION or is_attention
