"""Attention of wide heads against the plain one, in float64, with all gradients; and what a GPU is told to do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import model.attention.wide
from model.attention import dispatch
from model.attention.caches import l2_bytes, tile_elements
from model.attention.dispatch import attend
from model.attention.wide import wide_attention
from model.training.recomputation import selective

# Sums of some dozen float64 terms in another order.
TOLERANCE = 1e-12
SCALE = 0.3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
    scores = scale * q @ k.mT
    return (scores if hidden is None else scores.masked_fill(hidden, -torch.inf)).softmax(dim=-1) @ v


@pytest.fixture(params=[1, 20, 70, 2**20], ids=["one query a tile", "some", "some heads", "all"])
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.attention.wide, "tile_elements", lambda *_: request.param)


HIDDEN = ~(torch.arange(7) < torch.tensor([3, 7, 1]).view(3, 1, 1))
LATER = torch.ones(3, 5, 7, dtype=torch.bool).triu(3)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("hidden", [None, HIDDEN, LATER], ids=["all", "masked", "causal"])
def test_wide_heads_give_the_plain_attention_and_all_its_gradients(hidden: Tensor | None) -> None:
    results = []
    attention: tuple[Callable[..., Tensor], ...] = (plain, wide_attention)
    for function in attention:
        q, k, v = (random(3, n, c, seed=n).requires_grad_() for n, c in ((5, 4), (7, 4), (7, 6)))
        out = function(q, k, v, hidden, SCALE)
        results.append([out, *torch.autograd.grad(out.sin().sum(), (q, k, v))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.usefixtures("_tiles")
def test_bfloat16_is_added_up_in_float32() -> None:
    q, k, v = (random(3, n, 4, seed=n).bfloat16().requires_grad_() for n in (40, 7, 7))
    exact = [part.detach().double().requires_grad_() for part in (q, k, v)]
    found = torch.autograd.grad(wide_attention(q, k, v, None, SCALE).float().square().sum(), (q, k, v))
    expected = torch.autograd.grad(plain(*exact, None, SCALE).square().sum(), exact)
    for one, other in zip(found, expected, strict=True):
        # Eight bits of mantissa, of the largest.
        assert (one.double() - other).abs().max() < 0.03 * other.abs().max()


def test_queries_that_all_samples_share_and_heads_side_by_side_are_read_as_they_lie() -> None:
    q, kv = random(1, 5, 4).requires_grad_(), random(3, 7, 12, seed=1).requires_grad_()
    results = []
    attention: tuple[Callable[..., Tensor], ...] = (plain, wide_attention)
    for function in attention:
        out = function(q.expand(3, -1, -1), kv[..., :4], kv[..., 4:], None, SCALE)
        results.append([out, *torch.autograd.grad(out.sin().sum(), (q, kv))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("width", "is_wide"), [(256, False), (264, True), (704, True)])
def test_a_gpu_takes_it_for_heads_that_flash_attention_does_not(width: int, is_wide: bool, masked: bool) -> None:
    q, k, v = (torch.empty(2, 1, n, width, device="meta", dtype=torch.bfloat16) for n in (5, 9, 9))
    valid = torch.empty(2, 9, dtype=torch.bool, device="meta") if masked else None
    with Calls() as calls:
        assert attend(q, k, v, valid).shape == q.shape
    assert ("perceiver::wide_attention" in calls.names) == is_wide


def test_its_mask_hides_the_same_keys_from_every_head_of_a_sample() -> None:
    q, k, v = (torch.randn(3, 2, tokens, 6, dtype=torch.float64) for tokens in (4, 5, 5))
    valid_bnM = torch.arange(5) < torch.tensor([5, 1, 3])[:, None, None]
    found = dispatch._wide(q, k, v, valid_bnM, 0.3)
    expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=valid_bnM[:, None], scale=0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_selective_recomputation_runs_it_once() -> None:
    q = torch.empty(2, 5, 264, device="meta", dtype=torch.bfloat16, requires_grad=True)
    with Calls() as calls:
        selective(lambda value: wide_attention(value.tanh(), value, value, None, SCALE).exp(), q).sum().backward()
    assert calls.names.count("perceiver::wide_attention") == 1
    assert calls.names.count("perceiver::wide_attention_backward") == 1
    assert calls.names.count("aten::tanh") == 2


def test_two_arrays_of_scores_take_half_of_the_cache_of_a_gpu() -> None:
    # As an H100's, where none is here to be asked.
    gpu = torch.device("cuda")
    if not torch.cuda.is_available():
        assert l2_bytes(gpu) == 50 * 2**20
    for dtype in (torch.bfloat16, torch.float32):
        assert 2 * tile_elements(gpu, dtype) * dtype.itemsize == l2_bytes(gpu) // 2


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        # Five queries of seven keys each, of three heads: one query, two, five, and several heads at once.
        (1, [(1, 1)] * 15),
        (14, [(1, 2), (1, 2), (1, 1)] * 3),
        # Three would fit; two parts of at most three queries are as equal as can be.
        (27, [(1, 3), (1, 2)] * 3),
        (35, [(1, 5)] * 3),
        (70, [(2, 5), (1, 5)]),
        (10_000, [(3, 5)]),
    ],
)
def test_tiles_hold_no_more_scores_than_they_may_and_are_of_one_size(
    elements: int, expected: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.attention.wide, "tile_elements", lambda *_: elements)
    q, k = random(3, 5, 4), random(3, 7, 4, seed=1)
    tiles = list(model.attention.wide._tiles(q, k, None, SCALE))
    assert [(heads.stop - heads.start, queries.stop - queries.start) for heads, queries, _, _ in tiles] == expected
    assert [(*scores.shape,) for _, _, scores, _ in tiles] == [(*size, 7) for size in expected]
    assert [(*shares.shape,) for _, _, _, shares in tiles] == [(*size, 7) for size in expected]


def test_its_shapes_are_known_without_numbers() -> None:
    q, k, v = (torch.empty(3, n, c, device="meta", dtype=torch.bfloat16) for n, c in ((5, 4), (7, 4), (7, 6)))
    out = wide_attention(q, k, v, None, SCALE)
    assert (out.shape, out.dtype, out.device.type) == ((3, 5, 6), torch.bfloat16, "meta")
    gradients = model.attention.wide.wide_attention_backward(out, q, k, v, None, SCALE)
    assert [(each.shape, each.dtype) for each in gradients] == [(each.shape, each.dtype) for each in (q, k, v)]
