"""The kernel of the separable form: interpreted against the other forms, compiled, and run where there is a device."""

import contextlib
import re
import subprocess
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import model.attention.absorbed.tiled
from model.attention.absorbed import grid_support
from model.attention.absorbed.grid_tiles import CANDIDATES, DEFAULT, Tile
from model.attention.absorbed.tiled import read_tokens
from model.attention.absorbed.token_sources import GridTokens, SeparableTokens
from model.attention.norms import normalised
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.measures.losses import cross_entropy_sum
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from model.positions import axis_features

WITHOUT = "needs Triton, which comes with PyTorch for CUDA: pip install triton"
triton = pytest.importorskip("triton", reason=WITHOUT)
grid_kernel = pytest.importorskip("model.attention.absorbed.grid_kernel", reason=WITHOUT)
grid_read = pytest.importorskip("model.attention.absorbed.grid_read", reason=WITHOUT)

# Interpreting takes its time.
pytestmark = pytest.mark.slow
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and here is none")

# Sums of some hundred terms in another order; in float32 of exponentials of scores that are up to 30.
TOLERANCE = 1e-12
TOLERANCE_FLOAT32 = 1e-4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid_tokens(shape: tuple[int, ...], batch: int, content: int) -> GridTokens:
    tables = axis_features(shape, 3, [float(length) for length in shape], dtype=torch.float64)
    return GridTokens(random(batch, prod(shape), content), tables)


def separable(grid: GridTokens, dtype: torch.dtype, device: str = "cpu") -> SeparableTokens:
    return SeparableTokens(
        GridTokens(grid.content_BMc.to(device, dtype), tuple(table.to(device, dtype) for table in grid.axis_tables))
    )


def plain(queries: Tensor, grid: GridTokens, valid: Tensor | None) -> Tensor:
    tokens = normalised(grid.whole())
    scores = queries @ tokens.mT
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None], -1e30)
    return scores.softmax(dim=-1) @ tokens


def with_gradient(out: Tensor, queries: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad((out * upstream).sum(), queries)
    return out.detach(), gradient


GRIDS = [
    pytest.param((4, 6), 3, 5, id="image"),
    pytest.param((3, 37), 1, 40, id="rows-of-three-blocks"),
    pytest.param((3, 2, 5), 4, 5, id="video"),
    pytest.param((2, 17), 20, 3, id="wide-content"),
    pytest.param((2, 2), 50, 3, id="wider-content"),
    pytest.param((2, 3), 2, 130, id="two-blocks-of-queries"),
]


@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("programs", [1, 20], ids=["whole", "in-parts"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize(("shape", "content", "num_queries"), GRIDS)
def test_the_kernel_gives_the_other_forms_answers_and_gradients(
    shape: tuple[int, ...], content: int, num_queries: int, masked: bool, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_kernel, "PROGRAMS_PER_MULTIPROCESSOR", programs)
    grid = grid_tokens(shape, 2, content)
    width = grid.whole().shape[-1]
    queries, upstream = random(2, num_queries, width).requires_grad_(), random(2, num_queries, width, seed=3)
    # The last sample has nothing at all, and reads all tokens: `read_tokens` says so to the kernel too.
    valid = torch.arange(prod(shape)) < torch.tensor([[3], [0]]) if masked else None
    read = None if valid is None else valid | ~valid.any(dim=1, keepdim=True)
    source = separable(grid, torch.float64)
    found = with_gradient(grid_read.read_grid(queries, source, read), queries, upstream)
    tiles = with_gradient(read_tokens(queries, source, valid), queries, upstream)
    torch.testing.assert_close(found, tiles, rtol=TOLERANCE, atol=TOLERANCE)
    whole = with_gradient(plain(queries, grid, read), queries, upstream)
    torch.testing.assert_close(found, whole, rtol=0, atol=TOLERANCE)


def float32_error(device: str, valid: Tensor | None, scale: float = 1.0) -> float:
    """How far answers and gradients in float32 are from those of whole tokens in float64, the same twice."""
    grid, num_queries = grid_tokens((3, 2, 19), 2, 3), 33
    width = grid.whole().shape[-1]
    queries, upstream = scale * random(2, num_queries, width), random(2, num_queries, width, seed=3)
    expected = with_gradient(plain(queries.requires_grad_(), grid, valid), queries, upstream)
    asked = queries.detach().to(device, torch.float32).requires_grad_()
    source, mask = separable(grid, torch.float32, device), None if valid is None else valid.to(device)
    found, again = (
        with_gradient(grid_read.read_grid(asked, source, mask), asked, upstream.to(device, torch.float32))
        for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    return max((one.cpu() - other).abs().max().item() for one, other in zip(found, expected, strict=True))


VALID = torch.arange(114) < torch.tensor([[101], [1]])


@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("tile", [Tile(8, 128), Tile(16, 32)], ids=str)
def test_every_tile_gives_the_same_answers(tile: Tile) -> None:
    grid = grid_tokens((3, 37), 2, 3)
    width = grid.whole().shape[-1]
    queries, upstream = random(2, 40, width).requires_grad_(), random(2, 40, width, seed=3)
    source = separable(grid, torch.float64)
    found = with_gradient(grid_read.read_grid(queries, source, None, tile), queries, upstream)
    torch.testing.assert_close(found, with_gradient(plain(queries, grid, None), queries, upstream), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "masked"])
def test_the_kernel_is_as_exact_as_float32_and_the_same_twice(valid: Tensor | None) -> None:
    assert float32_error("cpu", valid) < TOLERANCE_FLOAT32


@pytest.mark.usefixtures("_interpreted")
def test_large_scores_do_not_overflow() -> None:
    grid = grid_tokens((3, 5), 1, 3)
    queries = 1e3 * random(1, 2, grid.whole().shape[-1])
    out = grid_read.read_grid(queries, separable(grid, torch.float64))
    torch.testing.assert_close(out, plain(queries, grid, None), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("_interpreted")
def test_samples_are_read_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_tokens((2, 3), 3, 1)
    queries, valid = random(3, 2, grid.whole().shape[-1]), random(3, 6, seed=1) > 0
    monkeypatch.setattr(grid_read, "DEVICE_TILE_ELEMENTS", 2 * 4 * 2 * (2 + 3))
    out = grid_read.read_grid(queries, separable(grid, torch.float64), valid)
    torch.testing.assert_close(out, plain(queries, grid, valid), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("programs", [1, 4, 56, 1000, 10**6])
@pytest.mark.parametrize(("rows", "blocks"), [(224, 14), (3584, 14), (1, 1), (7, 3), (2, 500)])
def test_few_samples_keep_a_device_busy(programs: int, rows: int, blocks: int) -> None:
    part_rows, part_blocks = grid_kernel.part_shape(programs, rows, blocks, multiprocessors=132)
    assert 1 <= part_rows <= rows
    assert 1 <= part_blocks <= blocks
    parts = -(-rows // part_rows) * -(-blocks // part_blocks)
    # Parts are of whole rows and blocks, so that there may be fewer of them than asked for, by half at the most.
    assert parts * programs * 4 >= min(132 * grid_kernel.PROGRAMS_PER_MULTIPROCESSOR, rows * blocks * programs)
    assert programs < 132 * grid_kernel.PROGRAMS_PER_MULTIPROCESSOR or parts == 1


def compile_for(capability: int, tile: Tile, channels: int, *, backward: bool) -> Any:  # noqa: ANN401
    shape = grid_kernel.kernel_shape(tile, channels, 512)
    return grid_kernel.compiled(divmod(capability, 10), shape, backward=backward)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("channels", [4, 5], ids=["kept", "in-memory"])
def test_the_kernel_compiles_without_spilling(
    channels: int, backward: bool, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    check_shape(compile_for(capability, DEFAULT, channels, backward=backward), tmp_path)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("columns", sorted({tile.columns for tile in CANDIDATES} - {DEFAULT.columns}))
def test_tiles_that_a_device_may_be_given_compile_without_spilling(
    columns: int, backward: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    check_shape(compile_for(90, Tile(columns, 128), 4, backward=backward), tmp_path)


def check_shape(compiled: Any, folder: Path) -> None:  # noqa: ANN401
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    tool = triton.knobs.nvidia.cuobjdump.path
    usage = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    assert re.search(r"\bSTACK:0\b.*\bLOCAL:0\b", usage), usage
    # Nor do threads wait for each other's sums.
    assert grid_kernel.fault(compiled.metadata.shared, 0) is None
    assert "shfl" not in compiled.asm["ptx"]
    # Of two axes neither of which is seen to be contiguous, Triton 3.6 gives a thread a part of the columns.
    assert "tt.contiguity" not in compiled.asm["ttir"]


@pytest.fixture
def _a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU as far as it is asked about; nothing runs on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    for name in ("missing", "spilled"):
        monkeypatch.setattr(grid_support, name, getattr(grid_support, name).__wrapped__)


@pytest.mark.usefixtures("_a_device")
@pytest.mark.parametrize(
    ("warps", "spills"),
    [(8, 0), (4, 98), (4, 4), (4, 0)],
    ids=["other-shape", "spills", "spills-little", "as-it-should"],
)
def test_a_kernel_that_is_not_compiled_as_it_should_reads_nothing(
    warps: int, spills: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    # With more threads than queries, those of one query wait for each other, as they did under Triton 3.6.
    monkeypatch.setattr(grid_kernel, "num_warps", lambda _: warps)
    really = grid_kernel.compiled

    def loaded(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        kernel = really(*arguments, **more)
        # A device counts the spills when it loads the kernel.
        return SimpleNamespace(metadata=kernel.metadata, run=None, n_spills=spills)

    monkeypatch.setattr(grid_kernel, "compiled", loaded)
    found = grid_support.kernel_problem(torch.device("cuda"), 4, 512)
    if spills == 98:
        assert (
            found
            == f"Triton {triton.__version__} compiles the kernel with 98 registers that spill; at most 16 do no harm"
        )
    elif warps == 8:
        assert found is not None
        assert f"Triton {triton.__version__} compiles the kernel so that threads wait for each other" in found
    else:
        assert found is None


IMAGE = PerceiverConfig(
    inputs={"image": ImageInput(height=5, width=20, positions=PositionsConfig(num_bands=3))},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=6,
    latent_width=16,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=4),
)


PRECISIONS = [(torch.float32, 1e-4), (torch.bfloat16, 0.15)]


def training_step(device: str, precision: torch.dtype) -> dict[str, Tensor]:
    """The answers and all gradients of one step, the last sample of which has no token."""
    network, generator = Perceiver(IMAGE, seed=0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    network.to(device, torch.promote_types(precision, torch.float32))
    images = {"image": random(3, 5, 20, 3, seed=1).to(device, network.encoder.latents.weight.dtype)}
    with torch.autocast(device, torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = network(images, {"image": torch.tensor([5, 2, 0], device=device)})["label"]
    labels, weights = torch.tensor([0, 1, 2], device=device), torch.tensor([1.0, 1.0, 0.0], device=device)
    cross_entropy_sum(logits, labels, weights).backward()
    found = {name: p.grad.double().cpu() for name, p in network.named_parameters() if p.grad is not None}
    assert found.keys() == {name for name, _ in network.named_parameters()}
    return {**found, "logits": logits[:2].detach().double().cpu()}


def check_training_steps(device: str, precision: torch.dtype, tolerance: float) -> None:
    expected, found = training_step("cpu", torch.float64), training_step(device, precision)
    for name, value in found.items():
        # Softmax does not depend on the keys' bias: its gradient is what rounding left.
        if name.endswith("key.bias"):
            continue
        scale = expected[name].abs().max() + 1e-6
        assert (value - expected[name]).abs().max() < tolerance * scale, name


@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_a_perceiver_learns_the_same_through_the_kernel(
    precision: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    kernel = grid_read.sums_of_parts
    monkeypatch.setattr(grid_read, "sums_of_parts", lambda *arguments: runs.append(1) or kernel(*arguments))
    monkeypatch.setattr(model.attention.absorbed.tiled, "_has_kernel", lambda _, dtype: dtype == torch.float32)
    check_training_steps("cpu", precision, tolerance)
    # Each cross-attend reads once forwards and once backwards.
    assert len(runs) == 2 * IMAGE.num_cross_attends


@needs_cuda
@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "masked"])
def test_on_a_device_the_kernel_is_as_exact_as_float32(valid: Tensor | None) -> None:
    assert model.attention.absorbed.tiled._has_kernel(torch.device("cuda"), torch.float32)
    assert float32_error("cuda", valid) < TOLERANCE_FLOAT32


@needs_cuda
@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_on_a_device_a_perceiver_learns_the_same(precision: torch.dtype, tolerance: float) -> None:
    check_training_steps("cuda", precision, tolerance)
