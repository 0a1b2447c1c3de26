"""What TorchInductor makes of a layer on a GPU that is not there: its kernels beside products and attention, and bytes.

The layer's graphs, forward and backward, are traced on the CPU under autocast, and then told that their tensors are a
GPU's. Inductor lowers and fuses them as for an H100; nothing is compiled. Attention is one operation that it does not
look into, as flash attention is. Prints a JSON object by type of the residual stream and width of the MLP.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch._inductor.compile_fx  # so that everything of it is there
from torch import Tensor
from torch._functorch.aot_autograd import aot_module_simplified
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor import scheduler
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from model.attention import layers
from model.attention.layers import SelfAttend
from model.config.attention import AttentionConfig

BATCH, LATENTS, WIDTH = 64, 128, 256
CUDA = torch.device("cuda", 0)
H100 = DeviceProperties(
    type="cuda",
    index=0,
    multi_processor_count=132,
    cc=90,
    major=9,
    regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2_048,
    max_threads_per_block=1_024,
    warp_size=32,
)
Graph = tuple[GraphModule, list[Any]]


@torch.library.custom_op("fused_work::attend", mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.empty_like(v)


@torch.library.custom_op("fused_work::attend_backward", mutates_args=())
def attend_backward(upstream: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ANN401  # PyTorch's names
    ctx.save_for_backward(*inputs)


attend.register_fake(lambda _, __, v: torch.empty_like(v))
attend_backward.register_fake(lambda _, *given: tuple(map(torch.empty_like, given)))
attend.register_autograd(lambda ctx, upstream: attend_backward(upstream, *ctx.saved_tensors), setup_context=keep_inputs)


def graphs(step: Callable[[Tensor], Tensor], latents: Tensor) -> list[Graph]:
    """The step's graphs as Inductor is given them, forward and backward."""
    found: list[Graph] = []

    def keep(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        found.append((graph, inputs))
        return graph.forward

    def backend(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        partition = partial(min_cut_rematerialization_partition, compiler="inductor")
        compilers = {"fw_compiler": keep, "bw_compiler": keep, "partition_fn": partition}
        return aot_module_simplified(graph, inputs, decompositions=select_decomp_table(), **compilers)  # type: ignore[no-any-return]

    with torch.autocast("cpu", torch.bfloat16):
        out = torch.compile(step, backend=backend)(latents)
    out.float().sum().backward()
    return found


def on_gpu(graph: Graph, mode: FakeTensorMode) -> Graph:
    def moved(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, Tensor):
            return value
        with mode:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)

    module, inputs = graph
    for node in module.graph.nodes:
        node.meta["val"] = tree_map(moved, node.meta.get("val"))
        node.args, node.kwargs = tree_map(
            lambda value: CUDA if isinstance(value, torch.device) else value, (node.args, node.kwargs)
        )
    return module, [moved(value) for value in inputs]


@contextmanager
def believing_in_a_gpu() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(patch.object(DeviceProperties, "create", classmethod(lambda *_: H100)))
        stack.enter_context(patch.object(scheduler, "has_triton", lambda *_: True))
        stack.enter_context(patch("torch.cuda.is_available", lambda: True))
        stack.enter_context(patch("torch.cuda.current_device", lambda: 0))
        stack.enter_context(V.set_debug_handler(DebugContext()))
        yield


def kernels(graph: Graph) -> list[int]:
    """The bytes that each kernel moves, of those that Inductor writes itself."""
    mode = FakeTensorMode()
    module, inputs = on_gpu(graph, mode)
    lowering = GraphLowering(module, example_inputs=inputs)
    with V.set_fake_mode(mode), V.set_graph_handler(lowering):
        lowering.run(*inputs)
        lowering._update_scheduler()
        nodes = [node for node in lowering.scheduler.nodes if not isinstance(node, scheduler.ExternKernelSchedulerNode)]
        return [node.get_read_write_buffers_sizes() for node in nodes]


def work(residual_dtype: Any, mlp_ratio: int) -> dict[str, float]:  # noqa: ANN401
    """Kernels of a layer, and how often they move each element of its input, as if it had four bytes."""
    config = dataclasses.replace(AttentionConfig(num_heads=4), mlp_ratio=mlp_ratio)
    layer = SelfAttend(WIDTH, config, "tanh", compile=False, residual_dtype=residual_dtype)
    latents = torch.zeros(BATCH, LATENTS, WIDTH, dtype=torch.bfloat16 if residual_dtype == "bf16" else torch.float32)
    with patch.object(layers, "attend", lambda q, k, v, **_: attend(q, k, v)):
        found = graphs(partial(SelfAttend._thought, layer, draws=None), latents.requires_grad_())
    with believing_in_a_gpu():
        sizes = [size for graph in found for size in kernels(graph)]
    return {"kernels": len(sizes), "moves": sum(sizes) / (4 * latents.numel())}


if __name__ == "__main__":
    asked = [part.split(":") for part in sys.argv[1:]]
    print(json.dumps({f"{dtype} {ratio}": work(dtype, int(ratio)) for dtype, ratio in asked}))  # noqa: T201
