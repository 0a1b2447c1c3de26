"""torch.compile for layers that train: the backward pass computes again what is cheap, instead of reading it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

# What the compiler keeps by itself is 1. Anything less, and it first of all computes norms, softmax and GELU again: a
# fifth of a step's memory, in the same time. Matrix products are kept.
ACTIVATION_MEMORY_BUDGET = 0.99


def frugal_inductor(graph: GraphModule, example_inputs: Sequence[Tensor]) -> Any:  # noqa: ANN401
    """Compile a graph as torch.compile's own backend does, but within the budget of memory."""
    # Loading the compiler takes seconds, and most runs do not compile.
    from torch._functorch import config
    from torch._inductor.compile_fx import compile_fx

    # torch.compile has no option for it. What is computed again is decided here, for the backward pass too.
    with config.patch(activation_memory_budget=ACTIVATION_MEMORY_BUDGET):
        return compile_fx(graph, example_inputs)
