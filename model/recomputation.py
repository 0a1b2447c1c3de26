"""What the backward pass computes again instead of keeping: a policy for the steps of the encoder.

All by non-reentrant checkpointing, which alone is exact at every ZeRO stage when a module runs several times in a pass.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from model.config import ActivationCheckpointing

Layer = Callable[..., Tensor]
Run = Callable[..., Tensor]

# Matrix products and fused attention: dear to compute again; the element-wise work between them is not.
_PRODUCTS = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
)


def run_block(policy: ActivationCheckpointing) -> Run:
    """Return how a block is run: `run(block, latents)` is the block's output."""
    return {"none": kept, "layers": kept, "blocks": recomputed, "selective": selective, "offload": offloaded}[policy]


def run_layer(policy: ActivationCheckpointing) -> Run:
    """Return how a layer of a block is run."""
    return recomputed if policy == "layers" else kept


def run_cross_attend(policy: ActivationCheckpointing, *, absorbed: bool) -> Run:
    """Return how a cross-attend is run; one that absorbs its projections keeps no more than its products anyway."""
    if policy == "selective" and absorbed:
        return kept
    return recomputed if policy == "layers" else run_block(policy)


def kept(layer: Layer, *inputs: object) -> Tensor:
    """Return the layer's output, keeping what autograd keeps."""
    return layer(*inputs)


def recomputed(layer: Layer, *inputs: object) -> Tensor:
    """Return the layer's output, keeping its inputs only."""
    out: Tensor = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def selective(layer: Layer, *inputs: object) -> Tensor:
    """Return the layer's output, keeping the results of matrix products and computing the rest again."""
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
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    host: AbstractContextManager[object] = torch.autograd.graph.save_on_cpu(pin_memory=tensors[0].is_cuda)
    with host:
        return recomputed(layer, *inputs)


def _keep_products(_context: object, operation: object, *_inputs: object, **_options: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE
