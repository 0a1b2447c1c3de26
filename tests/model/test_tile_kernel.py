"""The kernels between the products of a tile: interpreted against what they take the place of, and compiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

import model.attention.caches
from model.attention.absorbed import tiled
from model.attention.absorbed.grid_tiles import CANDIDATES
from model.attention.absorbed.tiled import read_tokens
from model.attention.absorbed.token_sources import DenseTokens
from model.attention.caches import ASSUMED_L2_BYTES, l2_bytes

WITHOUT = "needs Triton, which comes with PyTorch for CUDA: pip install triton"
triton = pytest.importorskip("triton", reason=WITHOUT)
interpreter = pytest.importorskip("triton.runtime.interpreter", reason=WITHOUT)
tile_kernel = pytest.importorskip("model.attention.absorbed.tile_kernel", reason=WITHOUT)

# Sums of some dozen float64 terms in another order.
TOLERANCE = 1e-12
KERNELS = ("_to_shares_kernel", "_to_gradients_kernel")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def _interpreted_tiles(monkeypatch: pytest.MonkeyPatch, _interpreted_functions: None) -> None:
    """Let Triton interpret the kernels, on the CPU and in the precision of their arguments."""
    monkeypatch.setattr(tile_kernel, "_loaded", interpreter.InterpretedFunction(tile_kernel._loaded.fn).rewrite())
    for name in KERNELS:
        monkeypatch.setattr(tile_kernel, name, interpreter.InterpretedFunction(getattr(tile_kernel, name).fn))
    monkeypatch.setattr(tile_kernel, "BLOCK_TOKENS", 8)


MASKS = [None, torch.arange(11) < torch.tensor([[3], [11]]), torch.zeros(2, 11, dtype=torch.bool)]


@pytest.mark.usefixtures("_interpreted_tiles")
@pytest.mark.parametrize("valid", MASKS, ids=["all", "masked", "nothing"])
def test_tile_after_tile_the_kernels_do_what_pytorch_does(valid: Tensor | None) -> None:
    found, expected = [], []
    for into, (shares, gradients) in (
        (found, (tile_kernel.to_shares, tile_kernel.to_gradients)),
        (expected, (tiled._to_shares, tiled._to_gradients)),
    ):
        top, total = (
            torch.full((2, 5, 1), tiled.MASKED, dtype=torch.float64),
            torch.zeros(2, 5, 1).double(),
        )
        for seed in (0, 1):
            scores = 5 * random(2, 5, 11, seed=seed)
            rescale = shares(scores, top, total, valid)
            into += [scores, rescale, top.clone(), total.clone()]
        scores, products = random(2, 5, 11, seed=2), random(2, 5, 11, seed=3)
        gradients(scores, products, random(2, 5, seed=4)[..., None], random(2, 5, 1, seed=5), valid)
        into += [scores, products]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def test_two_products_are_added_where_they_are_written() -> None:
    whole = torch.zeros(3, 9, 4, dtype=torch.float64)
    first, second = ((random(2, 5, 6, seed=seed), random(2, 6, 4, seed=seed + 1)) for seed in (0, 2))
    tiled._write_sum(whole[1:, 2:7], first, second)
    expected = torch.zeros_like(whole)
    expected[1:, 2:7] = torch.matmul(*first) + torch.matmul(*second)
    torch.testing.assert_close(whole, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("_interpreted_tiles")
@pytest.mark.parametrize("valid", MASKS, ids=["all", "masked", "nothing"])
def test_reading_with_the_kernels_gives_the_same_answers_and_gradients(
    valid: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "CPU_TILE_ELEMENTS", 20)
    results = []
    for has_triton in (False, True):
        monkeypatch.setattr(tiled, "_has_triton", lambda _, here=has_triton: here)
        # As if float64 were a precision of devices.
        monkeypatch.setattr(tiled, "_UNKNOWN_TO_DEVICES", ())
        queries, tokens = random(2, 5, 8).requires_grad_(), random(2, 11, 8, seed=1).requires_grad_()
        out = read_tokens(queries, DenseTokens(tokens), valid, tokens)
        results.append([out, *torch.autograd.grad(out.sin().sum(), (queries, tokens))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_compile_for_devices(
    name: str, masked: bool, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    kernel = getattr(tile_kernel, name)
    constants = {"BLOCK_TOKENS": tile_kernel.BLOCK_TOKENS} | ({} if masked else {"valid": None})
    half = {"scores": "*bf16", "products": "*bf16", "valid": "*i1"}
    kinds = {
        n: "i32" if n.startswith("num_") or n == "valid_stride" else half.get(n, "*fp32") for n in kernel.arg_names
    }
    kinds |= dict.fromkeys(constants, "constexpr")
    compiled = triton.compile(
        triton.compiler.ASTSource(kernel, kinds, constants),
        target=triton.backends.compiler.GPUTarget("cuda", capability, 32),
        options={"num_warps": tile_kernel.NUM_WARPS},
    )
    # Neither are numbers held in memory for want of registers.
    assert "st.local" not in compiled.asm["ptx"]
    assert compiled.asm["cubin"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_samples", "num_queries", "num_tokens"), [(64, 512, 50_176), (64, 512, 2_048), (1, 2, 8)])
def test_the_scores_of_a_tile_stay_in_the_cache_of_a_gpu(
    dtype: torch.dtype, num_samples: int, num_queries: int, num_tokens: int
) -> None:
    source = DenseTokens(torch.empty(num_samples, num_tokens, 264, dtype=dtype, device="meta"))
    queries = torch.empty(num_samples, num_queries, 264, dtype=dtype, device="meta")
    read = 0
    for samples, tiles, scratch in tiled._tiles(source, queries):
        assert scratch.numel() * scratch.element_size() <= l2_bytes(queries.device) / 2
        read += sum(tokens.stop - tokens.start for tokens in tiles) * (samples.stop - samples.start)
    assert read == num_samples * num_tokens
    assert l2_bytes(queries.device) == ASSUMED_L2_BYTES


def test_a_tile_of_a_gpu_is_as_large_as_its_cache_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = DenseTokens(torch.empty(64, 50_176, 264, dtype=torch.bfloat16, device="meta"))
    queries = torch.empty(64, 512, 264, dtype=torch.bfloat16, device="meta")
    lengths = []
    caches: list[Callable[[torch.device], int]] = [lambda _: 40 * 2**20, lambda _: 80 * 2**20]
    for cache in caches:
        monkeypatch.setattr(model.attention.caches, "l2_bytes", cache)
        _, tiles, _ = next(tiled._tiles(source, queries))
        lengths.append(tiles[0].stop)
    assert lengths == [10_240, 20_480]


class LargeOperations(TorchDispatchMode):
    """The names of the operations that read or write whole tiles of scores, but for those that only look at them."""

    def __init__(self, tile_elements: int) -> None:
        super().__init__()
        self.tile_elements = tile_elements
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, out) if isinstance(value, Tensor)]
        is_view = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        if not is_view and any(tensor.numel() == self.tile_elements for tensor in tensors):
            self.names.append(func.name())
        return out


@pytest.mark.parametrize("masked", [False, True])
def test_a_tile_on_a_gpu_is_products_and_one_kernel_a_pass(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[object] = []
    monkeypatch.setattr(tiled, "_has_triton", lambda _: True)
    monkeypatch.setattr(tile_kernel, "_launch", lambda kernel, *_: launched.append(kernel))
    tokens = torch.empty(2, 64, 24, dtype=torch.bfloat16, device="meta", requires_grad=True)
    queries = torch.empty(2, 16, 24, dtype=torch.bfloat16, device="meta", requires_grad=True)
    valid = torch.empty(2, 64, dtype=torch.bool, device="meta") if masked else None
    with LargeOperations(2 * 16 * 64) as forward:
        out = read_tokens(queries, DenseTokens(tokens), valid, tokens)
    # The scores; then what they weigh.
    assert forward.names == ["aten::bmm.out", "aten::bmm"]
    with LargeOperations(2 * 16 * 64) as backward:
        torch.autograd.grad(out.sum(), (queries, tokens))
    # The scores and their gradients; the tokens' gradients, the second added to the first; the queries'.
    assert backward.names == ["aten::bmm.out"] * 3 + ["aten::baddbmm.out", "aten::bmm"]
    assert launched == [tile_kernel._to_shares_kernel, tile_kernel._to_gradients_kernel]


def test_blocks_and_warps_are_powers_of_two_which_alone_triton_takes() -> None:
    candidates = [size for tile in CANDIDATES for size in (tile.columns, tile.queries)]
    for number in (tile_kernel.BLOCK_TOKENS, tile_kernel.NUM_WARPS, *candidates):
        assert number.bit_count() == 1
