"""torch.compile for layers in training: fuses the work between matrix products and recomputes what is cheap.

A layer is compiled once for all layers of its kind: its weights are inputs of the compiled code, of which a network of
many blocks has no more than one of a single block.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule

Compile = Literal["auto", True, False]
P = ParamSpec("P")
T = TypeVar("T")

# What the compiler keeps by itself is 1. Anything less, and it first of all computes norms, softmax and GELU again: a
# fifth of a step's memory, in the same time. Matrix products are kept.
ACTIVATION_MEMORY_BUDGET = 0.99
# Shapes and modes of a layer that are compiled before it is left as it is: micro-batches that are tried for their
# memory, evaluation, latents that all samples share, with and without a mask, of several networks in a process.
MOST_VARIANTS = 64


def is_compiled(setting: Compile, device_type: str, *, zero_stage: int = 0) -> bool:
    """Return whether layers are compiled on a kind of device: by default on a GPU.

    ZeRO 3 gathers weights module by module, within what would be compiled: there the default compiles nothing.
    """
    return device_type == "cuda" and zero_stage < 3 if setting == "auto" else setting


class Regions:
    """What a network's layers are run by: the functions that they give, or their compiled forms."""

    def __init__(self, setting: Compile) -> None:
        self._setting = setting

    def __call__(self, function: Callable[P, T], device: torch.device) -> Callable[P, T]:
        """Return the function as it is run on a device."""
        is_traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        # Tensors may have the shapes of a GPU's and no numbers.
        is_fake = device.type == "cuda" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        compiles = is_compiled(self._setting, device.type) and not is_traced and not is_fake
        return _compiled(function) if compiles else function


@cache
def _compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return the one compiled form of a function of this module's users."""
    # Loading the compiler takes seconds, and most runs on a CPU do not compile.
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, MOST_VARIANTS)
    # Not dynamic: which shapes were met before would decide how the next one is computed, and a resumed run met others.
    return torch.compile(function, backend=_backend, dynamic=False)


def _backend(graph: GraphModule, example_inputs: Sequence[Tensor]) -> Any:  # noqa: ANN401
    return frugal_inductor(graph, example_inputs)


def frugal_inductor(graph: GraphModule, example_inputs: Sequence[Tensor]) -> Any:  # noqa: ANN401
    """Compile a graph as torch.compile's own backend does, but within the budget of memory and the same each time."""
    from torch._functorch import config
    from torch._inductor import config as inductor
    from torch._inductor.compile_fx import compile_fx

    # Else the clock chooses among kernels, some of which sum in another order. Older compilers do not know it.
    same = {"deterministic": True} if hasattr(inductor, "deterministic") else {}
    # torch.compile has no option for it. What is computed again is decided here, for the backward pass too.
    with config.patch(activation_memory_budget=ACTIVATION_MEMORY_BUDGET), inductor.patch(same):
        return compile_fx(graph, example_inputs, config_patches=same)
