"""Every layer against a reference that loops over samples, heads, queries and keys, in float64."""

from collections.abc import Callable
from math import erf as exact_erf
from math import exp, pi, sqrt, tanh

import pytest
import torch
from torch import Tensor, nn

import model.attention.cpu
from model.attention.dispatch import attend, padded_heads
from model.attention.layers import CrossAttend, SelfAttend
from model.attention.norms import normalised
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.parameters import draw_parameters
from model.positions import Positions, axis_features, fourier_features, grid_places

# Sums of some hundred float64 terms in another order.
TOLERANCE = 1e-12
F64 = torch.float64
Rows = list[list[float]]


def perturbed(module: nn.Module, seed: int) -> nn.Module:
    """Random values in every tensor: zero biases and unit scales would hide mistakes."""
    module.double()
    draw_parameters(module, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=F64)
    return module


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def linear(row: list[float], layer: nn.Linear) -> list[float]:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * x for w, x in zip(weights, row, strict=True)) + b for weights, b in zip(weight, bias, strict=True)]


def layer_norm(row: list[float], layer: nn.LayerNorm) -> list[float]:
    mean = sum(row) / len(row)
    deviation = sqrt(sum((x - mean) ** 2 for x in row) / len(row) + 1e-5)
    scales = zip(row, layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [(x - mean) / deviation * scale + offset for x, scale, offset in scales]


def gelu(x: float, kind: str) -> float:
    if kind == "erf":
        return 0.5 * x * (1 + exact_erf(x / sqrt(2)))
    return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


def mlp(row: list[float], norm: nn.LayerNorm, layer: nn.Module, kind: str) -> list[float]:
    hidden = [gelu(x, kind) for x in linear(layer_norm(row, norm), layer.widen)]  # type: ignore[arg-type]
    return [x + y for x, y in zip(row, linear(hidden, layer.narrow), strict=True)]  # type: ignore[arg-type]


def attention(q: Rows, k: Rows, v: Rows, num_heads: int, valid: list[bool]) -> Rows:
    qk_width, value_width = len(q[0]) // num_heads, len(v[0]) // num_heads
    out = []
    for query in q:
        row: list[float] = []
        for head in range(num_heads):
            channels = range(head * qk_width, (head + 1) * qk_width)
            scores = [sum(query[c] * key[c] for c in channels) / sqrt(qk_width) for key in k]
            top = max(scores)
            shares = [exp(score - top) if there else 0.0 for score, there in zip(scores, valid, strict=True)]
            total = sum(shares)
            for c in range(head * value_width, (head + 1) * value_width):
                row.append(sum(s * value[c] for s, value in zip(shares, v, strict=True)) / total if total else 0.0)
        out.append(row)
    return out


def cross_attend(layer: CrossAttend, queries: Tensor, tokens: Tensor, valid: list[bool], kind: str) -> Tensor:
    normed = [layer_norm(row, layer.norm_tokens) for row in tokens.tolist()]
    part = layer.attention
    q = [linear(layer_norm(row, layer.norm_query), part.query) for row in queries.tolist()]
    k, v = ([linear(row, projection) for row in normed] for projection in (part.key, part.value))
    read = [linear(row, part.output) for row in attention(q, k, v, part.num_heads, valid)]
    if layer.query_residual:
        read = [[x + y for x, y in zip(*rows, strict=True)] for rows in zip(queries.tolist(), read, strict=True)]
    return torch.tensor([mlp(row, layer.norm_mlp, layer.mlp, kind) for row in read], dtype=F64)


@pytest.mark.parametrize("kind", ["tanh", "erf"])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    "config", [AttentionConfig(), AttentionConfig(num_heads=2, qk_width=6, value_width=10, mlp_ratio=3)]
)
def test_cross_attend_equals_the_loops(config: AttentionConfig, residual: bool, kind: str) -> None:
    layer = perturbed(CrossAttend(7, 5, config, kind, query_residual=residual), seed=1)  # type: ignore[arg-type]
    assert isinstance(layer, CrossAttend)
    queries, tokens = random(2, 3, 7), random(2, 9, 5, seed=2)
    # The second sample has no valid token: its attention is 0, its biases are not.
    valid = torch.tensor([[True, False, True] * 3, [False] * 9])
    out = layer(queries, *layer.keys_values(normalised(tokens)), valid)
    for sample in range(2):
        expected = cross_attend(layer, queries[sample], tokens[sample], valid[sample].tolist(), kind)
        torch.testing.assert_close(out[sample], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["tanh", "erf"])
def test_self_attend_equals_the_loops(kind: str) -> None:
    layer = perturbed(SelfAttend(8, AttentionConfig(num_heads=2, mlp_ratio=2), kind), seed=3)  # type: ignore[arg-type]
    assert isinstance(layer, SelfAttend)
    latents = random(2, 5, 8)
    out = layer(latents)
    for sample in range(2):
        normed = [layer_norm(row, layer.norm_attention) for row in latents[sample].tolist()]
        part = layer.attention
        q, k, v = ([linear(row, projection) for row in normed] for projection in (part.query, part.key, part.value))
        heads = attention(q, k, v, 2, [True] * 5)
        rows = [
            [x + y for x, y in zip(row, linear(read, part.output), strict=True)]
            for row, read in zip(latents[sample].tolist(), heads, strict=True)
        ]
        expected = torch.tensor([mlp(row, layer.norm_mlp, layer.mlp, kind) for row in rows], dtype=F64)
        torch.testing.assert_close(out[sample], expected, rtol=0, atol=TOLERANCE)


def test_a_fully_masked_sample_has_attention_zero_and_finite_gradients() -> None:
    q, k, v = (random(2, 1, 4, 3, seed=seed).requires_grad_() for seed in range(3))
    valid = torch.tensor([[True, True, False, True], [False] * 4])
    out = attend(q, k, v, valid)
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    out.square().sum().backward()
    for tensor in (q, k, v):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert not tensor.grad[1].any()


def test_fourier_features_equal_the_loops_in_the_order_of_the_released_code() -> None:
    shape, num_bands, resolution = (3, 4), 5, (6.0, 9.0)
    features = fourier_features(grid_places(shape, dtype=F64), num_bands, resolution)
    wave: dict[str, Callable[[Tensor], Tensor]] = {"sine": torch.sin, "cosine": torch.cos}
    rows = []
    for y in range(3):
        for x in range(4):
            place = [-1 + 2 * y / 2, -1 + 2 * x / 3]
            row = list(place)
            for function in wave.values():
                for axis in range(2):
                    for band in range(num_bands):
                        frequency = 1 + (resolution[axis] / 2 - 1) * band / (num_bands - 1)
                        row.append(function(torch.tensor(pi * frequency * place[axis], dtype=F64)).item())
            rows.append(row)
    torch.testing.assert_close(features, torch.tensor(rows, dtype=F64), rtol=0, atol=TOLERANCE)


def test_padded_heads_give_the_same_attention_with_the_scale_of_the_true_width() -> None:
    q, k, v = random(2, 3, 5, 4), random(2, 3, 7, 4, seed=1), random(2, 3, 7, 11, seed=2)
    wide = padded_heads(q, k, v)
    assert [part.shape[-1] for part in wide] == [16, 16, 16]
    found = nn.functional.scaled_dot_product_attention(*wide, scale=4**-0.5)[..., :11]
    torch.testing.assert_close(found, attend(q, k, v), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads_at_once", [1, 4, 6])
def test_bfloat16_attention_is_that_of_float64_to_its_precision(
    masked: bool, heads_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.attention.cpu, "TILE_ELEMENTS", heads_at_once * 25)
    q, k, v = (random(2, 3, 5, 8, seed=seed) for seed in range(3))
    valid = torch.tensor([[True, False, True, True, True], [False] * 5]) if masked else None
    half = [part.bfloat16().requires_grad_() for part in (q, k, v)]
    exact = [part.detach().double().requires_grad_() for part in half]
    found, expected = attend(*half, valid), attend(*exact, valid)
    # Eight bits of mantissa, in the scores, the shares and the sums.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.03)
    found.float().sin().sum().backward()
    expected.sin().sum().backward()
    for mine, theirs in zip(half, exact, strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=0, atol=0.05)


@pytest.mark.parametrize("masked", [False, True])
def test_what_a_compiler_is_given_is_the_same_attention(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = random(2, 3, 4, 8), random(2, 3, 5, 8, seed=1), random(2, 3, 5, 6, seed=2)
    valid = torch.tensor([[[True, False, True, True, True]], [[True] + [False] * 4]]) if masked else None
    expected = model.attention.cpu.cpu_attention(q, k, v, valid)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(model.attention.cpu.cpu_attention(q, k, v, valid), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tables_of_positions_have_the_precision_of_the_network(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        positions = Positions(PositionsConfig(num_bands=8, max_resolution=(40, 56)), (5, 7))
    finally:
        torch.set_default_dtype(before)
    assert {table.dtype for table in positions.axis_tables} == {dtype}
    exact = axis_features((5, 7), 8, (40.0, 56.0), dtype=torch.float64)
    # An angle of 28 half turns in float32 has an error of 1e-5.
    tolerance = 1e-5 if dtype == torch.float32 else 0.0
    for found, expected in zip(positions.axis_tables, exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
