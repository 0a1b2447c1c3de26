"""Reading a grid by the kernel, interpreted on small grids, and where it is used; test_grid_kernel.py has the rest."""

from contextlib import nullcontext
from math import prod
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.attention.absorbed import grid_support, grid_tiles
from model.attention.absorbed.grid_tiles import DEFAULT, TILES, Tile, tile_of
from model.attention.absorbed.tiled import read_tokens
from model.attention.absorbed.token_sources import GridTokens, SeparableTokens
from model.positions import axis_features

WITHOUT = "needs Triton, which comes with PyTorch for CUDA: pip install triton"
pytest.importorskip("triton", reason=WITHOUT)
grid_kernel = pytest.importorskip("model.attention.absorbed.grid_kernel", reason=WITHOUT)
grid_read = pytest.importorskip("model.attention.absorbed.grid_read", reason=WITHOUT)

# Sums of some dozen float64 terms in another order.
TOLERANCE = 1e-12


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def source(shape: tuple[int, ...], batch: int, content: int) -> SeparableTokens:
    tables = axis_features(shape, 2, [float(length) for length in shape], dtype=torch.float64)
    return SeparableTokens(GridTokens(random(batch, prod(shape), content), tables))


@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize(("shape", "programs"), [((2, 5), 1), ((2, 2, 3), 20)], ids=["image", "video in parts"])
def test_a_small_grid_is_read_as_tile_by_tile_with_its_gradient(
    shape: tuple[int, ...], masked: bool, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_kernel, "PROGRAMS_PER_MULTIPROCESSOR", programs)
    # A sample at a time.
    monkeypatch.setattr(grid_read, "DEVICE_TILE_ELEMENTS", 1)
    tokens = source(shape, 2, 2)
    queries = random(2, 3, tokens.num_channels).requires_grad_()
    upstream = random(2, 3, tokens.num_channels, seed=3)
    valid = torch.arange(prod(shape)) < torch.tensor([[3], [prod(shape)]]) if masked else None
    results = []
    for read in (lambda q: grid_read.read_grid(q, tokens, valid, Tile(4, 4)), lambda q: read_tokens(q, tokens, valid)):
        out = read(queries)
        results.append((out.detach(), *torch.autograd.grad((out * upstream).sum(), queries)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.usefixtures("_interpreted")
def test_queries_of_half_precision_lose_nothing_between_the_passes() -> None:
    grid = source((3, 5), 2, 2)
    tokens = SeparableTokens(
        GridTokens(random(2, 15, 2).float(), tuple(table.float() for table in grid.tables)),
    )
    queries = random(2, 3, tokens.num_channels).bfloat16().requires_grad_()
    out = grid_read.read_grid(queries, tokens, None, Tile(4, 4))
    kept: Any = out.grad_fn
    # A logarithm of three digits, which the backward pass raises two to, would have an error of its own size.
    assert [tensor.dtype for tensor in kept.saved_tensors] == [torch.bfloat16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        # Three queries, each with two rows and five columns of numbers, four times.
        (1, [1, 1, 1]),
        (2 * 4 * 3 * 7 - 1, [1, 1, 1]),
        (2 * 4 * 3 * 7, [2, 1]),
        (10_000, [3]),
    ],
)
def test_as_many_samples_are_read_together_as_their_arrays_may_take(
    elements: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_read, "DEVICE_TILE_ELEMENTS", elements)
    groups = grid_read._groups(source((2, 5), 3, 2), torch.zeros(3, 3, 1))
    assert [part.stop - part.start for part in groups] == expected
    assert [part.start for part in groups] == [0, *(part.stop for part in groups[:-1])]


CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("version", "is_there", "capability", "expected"),
    [
        ("3.4.1", False, (9, 0), "Triton 3.4.1 is older than 3.5"),
        ("2.9.0", True, (9, 0), "Triton 2.9.0 is older than 3.5"),
        ("3.5.0", False, (9, 0), None),
        ("3.10.0", True, (9, 0), None),
        (None, False, (9, 0), None),
        (None, True, (9, 0), "Triton is not installed"),
        ("3.5.0", True, (8, 0), None),
        ("3.5.0", True, (7, 5), "its compute capability 7.5 is below 8.0"),
        # Where there is no GPU nobody knows what it can do.
        ("3.5.0", False, (7, 5), None),
    ],
)
def test_what_the_kernel_needs_is_told(
    version: str | None,
    is_there: bool,
    capability: tuple[int, int],
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grid_support, "triton_version", lambda: version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    # As it is, without what was found before.
    assert grid_support.missing.__wrapped__(CUDA) == expected


@pytest.mark.parametrize(
    ("spills", "asked", "expected"),
    [
        ({False: 0, True: 0}, [False, True], None),
        ({False: 0, True: 7}, [False, True], "Triton 3.6 compiles the kernel with 7 of 5"),
        ({False: 7, True: 0}, [False], "Triton 3.6 compiles the kernel with 7 of 5"),
    ],
)
def test_both_directions_of_the_kernel_are_looked_at_before_it_is_used(
    spills: dict[bool, int], asked: list[bool], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = list[bool]()

    def compiles(capability: object, shape: object, *, backward: bool) -> SimpleNamespace:
        assert (capability, shape) == ((9, 0), (DEFAULT, 4, 6))
        compiled.append(backward)
        return SimpleNamespace(run=None, metadata=SimpleNamespace(shared=5), n_spills=spills[backward])

    monkeypatch.setattr(grid_support, "triton_version", lambda: "3.6")
    monkeypatch.setattr(grid_support, "tile_of", lambda _: DEFAULT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(grid_kernel, "kernel_shape", lambda *shape: shape)
    monkeypatch.setattr(grid_kernel, "compiled", compiles)
    monkeypatch.setattr(grid_kernel, "fault", lambda shared, found: f"with {found} of {shared}" if found else "")
    assert grid_support.spilled.__wrapped__(CUDA, 4, 6) == expected
    assert compiled == asked
    # Nothing is compiled for a CPU, or for a GPU that is not here.
    assert grid_support.spilled.__wrapped__(CPU, 4, 6) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert grid_support.spilled.__wrapped__(CUDA, 4, 6) is None
    assert compiled == asked


def test_a_problem_of_the_kernel_is_what_is_missing_and_then_how_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"missing": None, "spilled": None}
    monkeypatch.setattr(grid_support, "missing", lambda _: found["missing"])
    monkeypatch.setattr(grid_support, "spilled", lambda *_: found["spilled"])
    assert grid_support.kernel_problem(CUDA, 4, 6) is None
    found["spilled"] = "slow"
    assert grid_support.kernel_problem(CUDA, 4, 6) == "slow"
    found["missing"] = "absent"
    assert grid_support.kernel_problem(CUDA, 4, 6) == "absent"


def test_a_device_has_its_own_tile_where_one_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {**TILES, (9, 9): Tile(8, 64)}
    monkeypatch.setattr(grid_tiles, "TILES", measured)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 9))
    assert tile_of(CUDA) == Tile(8, 64)
    assert tile_of(CPU) == DEFAULT == Tile(16, 128)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 8))
    assert tile_of(CUDA) == DEFAULT
