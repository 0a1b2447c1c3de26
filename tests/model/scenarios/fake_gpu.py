"""A training step on a GPU that is not there: tensors have a device, a shape and no values, and operations are counted.

PyTorch without CUDA neither differentiates nor autocasts fake tensors of a GPU. Its engine is told that they are of no
device, which they still tell everyone else, and autocast is done here, operation by operation, as it is documented.
"""

import dataclasses
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

pytest.importorskip("triton", reason="the kernel that is replaced here needs triton")

import model.attention.absorbed.grid_read  # noqa: F401  # so that its kernel can be replaced
from model.attention.absorbed.grid_tiles import DEFAULT, Tile
from model.config.perceiver import PerceiverConfig
from model.perceiver import Perceiver
from model.training.offload import Offload

CUDA = torch.device("cuda", 0)
ATEN = torch.ops.aten
PRODUCTS = ("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "conv2d")
IN_HALF = frozenset({*PRODUCTS, "scaled_dot_product_attention"})
IN_FULL = frozenset({"layer_norm", "softmax", "log_softmax", "sum", "pow", "square", "rsqrt", "norm", "exp", "log"})
WIDENED = frozenset({"cat", "stack", "where"})


class Autocast:
    """What torch.autocast is where there is a GPU; other devices are left alone."""

    depth = 0
    weights: ClassVar[dict[int, tuple[Tensor, Tensor]]] = {}

    def __init__(
        self,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        self.is_gpu, is_cached = device_type == "cuda", torch.is_autocast_cache_enabled()
        self.now = (enabled, dtype or torch.bfloat16, is_cached if cache_enabled is None else cache_enabled)

    def __enter__(self) -> Self:
        self.before = (
            torch.is_autocast_enabled("cuda"),
            torch.get_autocast_dtype("cuda"),
            torch.is_autocast_cache_enabled(),
        )
        Autocast.depth += 1
        self.set(self.now)
        return self

    def __exit__(self, *_: object) -> None:
        Autocast.depth -= 1
        self.set(self.before)
        if not Autocast.depth:
            Autocast.weights.clear()

    def set(self, state: tuple[bool, torch.dtype, bool]) -> None:
        torch.set_autocast_cache_enabled(state[2])
        if self.is_gpu:
            torch.set_autocast_enabled("cuda", state[0])
            torch.set_autocast_dtype("cuda", state[1])


class Carried:
    """Copies between a GPU and its host, in no time."""

    def leave(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu")

    def fetch(self, kept: Tensor) -> tuple[Tensor, None]:
        return kept.to(CUDA), None

    def meet(self, tensor: Tensor, arrival: None) -> None:
        pass


class OnGpu(TorchFunctionMode):
    """Autocast of the operations of a network, and the attention of a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if torch.is_autocast_enabled("cuda"):
            if name in IN_HALF:
                args, kwargs = tree_map(halved, (args, kwargs))
            elif name in IN_FULL:
                args, kwargs = tree_map(lambda value: cast(value, torch.float32), (args, kwargs))
            elif name in WIDENED and any(is_float(value, torch.float32) for value in tree_leaves(args)):
                args = tree_map(lambda value: cast(value, torch.float32), args)
        if func is functional.scaled_dot_product_attention:
            return fused_attention(*args, **kwargs)
        return func(*args, **kwargs)


def is_float(value: object, *dtypes: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dtype in dtypes


def cast(value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401
    return value.to(dtype) if is_float(value, torch.float32, torch.bfloat16) and value.dtype != dtype else value


def halved(value: Any) -> Any:  # noqa: ANN401
    """Weights are cast once while autocast lasts."""
    if not (isinstance(value, nn.Parameter) and value.dtype == torch.float32):
        return cast(value, torch.bfloat16)
    if not torch.is_autocast_cache_enabled():
        return cast(value, torch.bfloat16)
    if id(value) not in Autocast.weights:
        Autocast.weights[id(value)] = value, value.to(torch.bfloat16)
    return Autocast.weights[id(value)][1]


def fused_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:  # noqa: ANN401
    """The kernel that PyTorch takes: flash without a mask and up to 256 channels, else the memory-efficient one."""
    if q.dtype != torch.float32 and attn_mask is None and q.shape[-1] <= 256:
        return ATEN._scaled_dot_product_flash_attention(q, k, v, **options)[0]  # type: ignore[no-any-return]
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2]).to(q.dtype)
    return ATEN._scaled_dot_product_efficient_attention(q, k, v, attn_mask, True, **options)[0]  # type: ignore[no-any-return]


def recomputed(layer: Any, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401
    """Checkpoint a layer; the engine takes the mode away before it computes it again."""

    def on_gpu(*inputs: Any) -> Any:  # noqa: ANN401
        with OnGpu():
            return layer(*inputs)

    return checkpoint(on_gpu, *inputs, **options)


def without_device(cls: Any, elem: Tensor, require_grad: bool = False, **options: Any) -> Any:  # noqa: ANN401
    return make_subclass(cls, elem, require_grad, **{**options, "dispatch_device": False})


make_subclass = Tensor._make_subclass


def fake_kernel(_: Any, asked: Any, __: Any, tile: Tile) -> Any:  # noqa: ANN401
    """The kernel of the separable form, in one part of the grid."""
    (b, rows, N), (_, columns, _), (_, channels, _) = (part.shape for part in asked)
    new, blocks = asked[0].new_empty, columns // tile.columns
    sums = new(b, 1, rows, 1, N), new(b, 1, blocks, tile.columns, N), new(b, 1, channels, 1, N)
    tops = new(b, 1, rows, 1, N), new(b, 1, blocks, 1, N), new(b, 1, 1, 1, N)
    return sums, tops, new(b, 1, 1, 1, N)


@contextmanager
def gpu() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(patch.object(Tensor, "_make_subclass", staticmethod(without_device)))
        stack.enter_context(FakeTensorMode())
        for place in ("torch.autocast", "torch.amp.autocast"):
            stack.enter_context(patch(place, Autocast))
        stack.enter_context(
            patch("model.attention.absorbed.tiled._has_kernel", lambda device, _: device.type == "cuda")
        )
        stack.enter_context(patch("model.attention.absorbed.grid_read.tile_of", lambda _: DEFAULT))
        stack.enter_context(patch("model.attention.absorbed.grid_read.sums_of_parts", fake_kernel))
        stack.enter_context(patch("torch.amp.is_autocast_available", lambda device: device in ("cpu", "cuda")))
        stack.enter_context(patch("model.training.recomputation.checkpoint", recomputed))
        offload = Offload(Carried())
        stack.enter_context(patch("model.training.recomputation._offload", lambda _: offload))
        stack.enter_context(OnGpu())
        yield


NO_KERNEL = frozenset({"empty", "empty_like", "new_empty", "_unsafe_view", "detach", "lift_fresh"})
KINDS = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"), "product"),
    **dict.fromkeys(("native_layer_norm", "native_layer_norm_backward"), "norm"),
    **dict.fromkeys(("add", "add_"), "add"),
    **dict.fromkeys(("gelu", "gelu_backward"), "gelu"),
    **dict.fromkeys(("copy_", "clone", "cat", "constant_pad_nd", "slice_backward"), "copy"),
    "_to_copy": "cast",
}


class Work(TorchDispatchMode):
    """Counts launches and the bytes that they read and write, by kind, and the most bytes that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.traffic: Counter[str] = Counter()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = dict(kwargs or {})
        # The engine's idea of where a tensor is.
        if getattr(kwargs.get("device"), "type", "") == "meta":
            kwargs["device"] = CUDA
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        written = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if written and not func.is_view and name not in NO_KERNEL:
            kind = "attention" if "attention" in name else KINDS.get(name, "other")
            self.launches[kind] += 1
            self.traffic[kind] += sum(t.numel() * t.element_size() for t in (*read, *written))
        given = {t.untyped_storage()._cdata for t in read}
        for tensor in written:
            if tensor.untyped_storage()._cdata not in given and tensor.device.type == "cuda":
                self.hold(tensor.untyped_storage())
        return out

    def hold(self, storage: Any) -> None:  # noqa: ANN401
        pointer, size = storage._cdata, storage.nbytes()
        if pointer in self.known or not size:
            return
        self.known.add(pointer)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.forget, pointer, size)

    def forget(self, pointer: int, size: int) -> None:
        self.known.discard(pointer)
        self.now -= size


def step(config: PerceiverConfig, batch: int, *, bf16: bool) -> Work:
    """Return the work of a step's forward and backward pass; the bytes are those beyond weights and their gradients.

    Nothing is compiled: the compiler would look for the GPU.
    """
    config = dataclasses.replace(config, compile=False)
    with gpu():
        built = Perceiver(config, seed=0)
        for module in built.modules():
            for name, parameter in module.named_parameters(recurse=False):
                stand_in = nn.Parameter(torch.empty(parameter.shape, device=CUDA))
                stand_in.grad = torch.empty(parameter.shape, device=CUDA)
                setattr(module, name, stand_in)
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty_like(buffer, device=CUDA))
        inputs = {
            name: torch.empty(
                batch, *modality.shape, dtype=torch.int64 if name == "text" else torch.float32, device=CUDA
            )
            for name, modality in config.ordered_inputs.items()
        }
        # As the trainer does: batch norms see the global batch before the step.
        built.observe(inputs, {name: torch.ones(batch, device=CUDA) for name in inputs}, lambda sums: sums)
        with Work() as work:
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                answers = built(inputs)
            loss = sum(answer.float().sum() for answer in answers.values())
            loss.backward()  # type: ignore[union-attr]
    return work
