"""The tiled forms of attention against the plain one, in float64, with all gradients."""

import pytest
import torch
from torch import Tensor

import model.attention.absorbed.tiled
from model.attention.absorbed.tiled import TokenSource, read_tokens
from model.attention.absorbed.token_sources import DenseTokens, GridTokens, SeparableTokens
from model.attention.layers import in_autocast
from model.attention.norms import normalised
from model.positions import axis_features, fourier_features, grid_places

# Sums of some hundred float64 terms in another order.
TOLERANCE = 1e-12


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(queries: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
    scores = queries @ tokens.mT
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None], -torch.inf)
    return scores.softmax(dim=-1) @ tokens


def grid_tokens(shape: tuple[int, ...], batch: int, content: int = 3) -> tuple[GridTokens, Tensor]:
    """A grid in its parts, and put together."""
    features = fourier_features(grid_places(shape, dtype=torch.float64), 4, [float(n) for n in shape])
    values = random(batch, len(features), content)
    tables = axis_tables(shape, num_bands=4)
    whole = torch.cat([values, features.expand(batch, -1, -1)], dim=-1)
    return GridTokens(values, tables), whole


def axis_tables(shape: tuple[int, ...], num_bands: int) -> tuple[Tensor, ...]:
    return axis_features(shape, num_bands, [float(n) for n in shape], dtype=torch.float64)


@pytest.fixture(params=[64, 2**19])
def tile_elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles, and one."""
    monkeypatch.setattr(model.attention.absorbed.tiled, "CPU_TILE_ELEMENTS", request.param)


@pytest.mark.usefixtures("tile_elements")
@pytest.mark.parametrize("masked", [False, True])
def test_dense_tokens_give_the_plain_attention_and_all_its_gradients(masked: bool) -> None:
    queries, tokens = random(3, 5, 8).requires_grad_(), random(3, 11, 8, seed=1).requires_grad_()
    valid = random(3, 11, seed=2) > 0 if masked else None
    upstream = random(3, 5, 8, seed=3)
    expected = torch.autograd.grad((plain(queries, tokens, valid) * upstream).sum(), (queries, tokens))
    out = read_tokens(queries, DenseTokens(tokens), valid, tokens)
    torch.testing.assert_close(out, plain(queries, tokens, valid), rtol=0, atol=TOLERANCE)
    found = torch.autograd.grad((out * upstream).sum(), (queries, tokens))
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("tile_elements")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(11,), (4, 6), (3, 2, 5)])
def test_separable_tokens_give_the_plain_attention_and_its_gradient(shape: tuple[int, ...], masked: bool) -> None:
    grid, whole = grid_tokens(shape, batch=2)
    tokens = normalised(whole)
    queries, upstream = random(2, 5, tokens.shape[2]).requires_grad_(), random(2, 5, tokens.shape[2], seed=3)
    valid = torch.arange(tokens.shape[1]) < torch.tensor([[7], [tokens.shape[1]]]) if masked else None
    expected = plain(queries, tokens, valid)
    source: TokenSource = SeparableTokens(grid)
    out = read_tokens(queries, source, valid)
    torch.testing.assert_close(out, expected, rtol=0, atol=TOLERANCE)
    (found,) = torch.autograd.grad((out * upstream).sum(), queries)
    torch.testing.assert_close(
        found, torch.autograd.grad((expected * upstream).sum(), queries)[0], rtol=0, atol=TOLERANCE
    )


def test_autocast_rounds_nothing_that_the_backward_pass_of_separable_tokens_computes_again() -> None:
    grid, whole = grid_tokens((4, 6), batch=2)
    source = SeparableTokens(GridTokens(grid.content_BMc.float(), tuple(table.float() for table in grid.axis_tables)))
    queries = random(2, 5, whole.shape[2]).float()
    expected = read_tokens(queries, source)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(read_tokens(queries, source), expected)


def test_autocast_multiplies_dense_tokens_in_its_precision_in_both_passes() -> None:
    values = random(2, 11, 8, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        held = in_autocast(values)
        assert in_autocast(values.double()).dtype == torch.float64
    assert held.dtype == torch.bfloat16
    assert in_autocast(values) is values
    results = []
    for enabled in (True, False):
        queries, tokens = random(2, 5, 8).float().requires_grad_(), held.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = read_tokens(queries, DenseTokens(tokens), None, tokens)
        assert out.dtype == torch.bfloat16
        results.append((out, *torch.autograd.grad(out.float().square().sum(), (queries, tokens))))
    assert all(torch.equal(on, off) for on, off in zip(*results, strict=True))
    assert results[0][1].dtype == torch.float32


@pytest.mark.usefixtures("tile_elements")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_sample_without_a_valid_token_stays_finite_in_every_precision(dtype: torch.dtype) -> None:
    queries, tokens = random(3, 5, 8).to(dtype).requires_grad_(), random(3, 11, 8, seed=1).to(dtype).requires_grad_()
    # The second sample has no token, and the third none in its first tiles.
    valid = torch.stack([torch.ones(11), torch.zeros(11), torch.arange(11) > 8]) > 0
    out = read_tokens(queries, DenseTokens(tokens), valid, tokens)
    gradients = torch.autograd.grad(out[::2].float().sum(), (queries, tokens))
    assert all(gradient.isfinite().all() for gradient in (out, *gradients))
    expected = plain(queries.double(), tokens.double(), valid)
    # bfloat16 keeps 3 digits.
    tolerance = {torch.float64: TOLERANCE, torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    torch.testing.assert_close(out[::2].double(), expected[::2], rtol=0, atol=tolerance)


def test_large_scores_do_not_overflow() -> None:
    queries, tokens = 1e3 * random(1, 2, 8), random(1, 11, 8, seed=1)
    out = read_tokens(queries, DenseTokens(tokens))
    torch.testing.assert_close(out, plain(queries, tokens, None), rtol=0, atol=1e-10)


def test_no_graph_of_the_tokens_is_kept_for_the_backward_pass() -> None:
    tokens = (random(2, 11, 8).requires_grad_() * 2).float()
    source = DenseTokens(tokens)
    out = read_tokens(random(2, 5, 8).float(), source)
    assert not source.values_BMC.requires_grad
    assert not out.requires_grad
    # It is a view: detaching copies nothing.
    assert source.values_BMC.data_ptr() == tokens.data_ptr()


@pytest.mark.parametrize(("num_queries", "num_tokens"), [(7, 300_000), (600, 3_000), (2_000, 2_000)])
def test_scores_of_one_tile_are_all_that_is_held_at_once(num_queries: int, num_tokens: int) -> None:
    source = DenseTokens(torch.zeros(3, num_tokens, 1))
    groups = list(model.attention.absorbed.tiled._tiles(source, torch.zeros(3, num_queries, 1)))
    assert num_queries * num_tokens > 2**19
    for samples, tiles, scratch in groups:
        longest = max(tile.stop - tile.start for tile in tiles)
        assert (samples.stop - samples.start) * num_queries * longest <= scratch.shape[1] <= 2**19
        assert [tile.start for tile in tiles] == [0, *(tile.stop for tile in tiles[:-1])]
        assert tiles[-1].stop == num_tokens
    assert [samples.start for samples, _, _ in groups] == [0, *(samples.stop for samples, _, _ in groups[:-1])]


def test_a_tile_of_a_grid_has_an_odd_number_of_rows() -> None:
    """Rows of scores that lie whole pages apart make products of few channels four times slower."""
    grid, _ = grid_tokens((64, 64), batch=1)
    source = SeparableTokens(grid)
    for num_queries in (256, 512, 1_024):
        (_, tiles, _), *_ = model.attention.absorbed.tiled._tiles(source, torch.zeros(1, num_queries, 1))
        assert len(tiles) > 1
        assert (tiles[0].stop - tiles[0].start) // source.row % 2 == 1


def test_sums_over_tiles_are_taken_in_float32_at_the_least() -> None:
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2):
        tokens = DenseTokens(torch.zeros(2, 3, 4, dtype=dtype))
        assert tokens.sums(tokens.prepared(torch.zeros(2, 5, 4, dtype=dtype))).dtype == expected
    grid, _ = grid_tokens((2, 3), batch=1)
    halves = GridTokens(grid.content_BMc.bfloat16(), tuple(table.bfloat16() for table in grid.axis_tables))
    assert [SeparableTokens(each).dtype for each in (halves, grid)] == [torch.float32, torch.float64]


@pytest.mark.parametrize(
    ("device", "dtype", "cuda", "is_there", "problem", "steps", "kernel"),
    [
        ("cuda", torch.float32, "13.0", True, None, True, True),
        # The kernel of grids is for float32 alone, that of tiles for all but float64.
        ("cuda", torch.bfloat16, "13.0", True, None, True, False),
        ("cuda", torch.float64, "13.0", True, None, False, False),
        ("cuda", torch.float32, "13.0", True, "too old", False, False),
        ("cuda", torch.float32, "13.0", False, None, False, False),
        ("cuda", torch.float32, None, True, None, False, False),
        ("cpu", torch.float32, "13.0", True, None, False, False),
    ],
)
def test_triton_is_asked_where_it_runs(
    device: str,
    dtype: torch.dtype,
    cuda: str | None,
    is_there: bool,
    problem: str | None,
    steps: bool,
    kernel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton", reason="it comes with PyTorch for CUDA")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(model.attention.absorbed.tiled, "missing", lambda _: problem)
    assert model.attention.absorbed.tiled._has_kernel(torch.device(device), dtype) == kernel
    found = model.attention.absorbed.tiled._steps(DenseTokens(torch.zeros(1, 2, 3, dtype=dtype)), torch.device(device))
    names = [step.__module__.rpartition(".")[2] for step in found]
    assert names == ["tile_kernel" if steps else "tiled"] * 2


@pytest.mark.parametrize(
    ("elements", "samples", "tokens"),
    [
        # Five queries and eleven tokens of three samples.
        (1, [1, 1, 1], [1] * 11),
        (20, [1, 1, 1], [4, 4, 3]),
        (64, [1, 1, 1], [11]),
        (120, [2, 1], [11]),
        (10_000, [3], [11]),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_tile_has_as_many_tokens_and_samples_as_its_scores_may_take(
    elements: int, samples: list[int], tokens: list[int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A CPU's own number, and what a device says of itself.
    monkeypatch.setattr(model.attention.absorbed.tiled, "CPU_TILE_ELEMENTS", elements if device == "cpu" else 0)
    monkeypatch.setattr(model.attention.absorbed.tiled, "tile_elements", lambda *_: elements if device != "cpu" else 0)
    source = DenseTokens(torch.zeros(3, 11, 4, device=device, dtype=torch.float64))
    groups = list(model.attention.absorbed.tiled._tiles(source, torch.zeros(3, 5, 4, device=device)))
    assert [part.stop - part.start for part, _, _ in groups] == samples
    for _, tiles, scratch in groups:
        assert [tile.stop - tile.start for tile in tiles] == tokens
        assert scratch.shape == (2, samples[0] * 5 * tokens[0])
        assert (scratch.dtype, scratch.device.type) == (torch.float64, device)


@pytest.mark.parametrize(
    ("width", "elements", "tokens"),
    [
        (6, 1, [6, 6, 6, 6]),
        (6, 59, [6, 6, 6, 6]),
        (6, 64, [18, 6]),
        (6, 120, [24]),
        (6, 10_000, [24]),
        # Two rows of two would be an even number.
        (2, 20, [6, 2]),
    ],
)
def test_a_tile_of_a_grid_is_an_odd_number_of_whole_rows(
    width: int, elements: int, tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.attention.absorbed.tiled, "CPU_TILE_ELEMENTS", elements)
    source = SeparableTokens(grid_tokens((4, width), batch=1)[0])
    ((_, tiles, _),) = model.attention.absorbed.tiled._tiles(source, torch.zeros(1, 5, 4))
    assert [tile.stop - tile.start for tile in tiles] == tokens


def test_what_the_backward_pass_divides_by_is_kept_in_float32() -> None:
    kept: list[tuple[tuple[int, ...], torch.dtype]] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(((*tensor.shape,), tensor.dtype))
        return tensor

    queries, tokens = random(2, 5, 8).bfloat16().requires_grad_(), random(2, 11, 8, seed=1).bfloat16().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        read_tokens(queries, DenseTokens(tokens), None, tokens)
    halves = [((2, 5, 8), torch.bfloat16), ((2, 11, 8), torch.bfloat16), ((2, 5, 8), torch.bfloat16)]
    assert kept == [*halves, ((2, 5), torch.float32)]
