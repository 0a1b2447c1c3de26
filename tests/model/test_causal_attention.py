"""Attention in which each query sees keys of its own, on every path of `attend`."""

import pytest
import torch
from torch import Tensor

import model.attention.cpu
from model.attention.cpu import TILE_ELEMENTS
from model.attention.dispatch import attend

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    scores = q @ k.mT * q.shape[-1] ** -0.5
    return scores.masked_fill(~seen[:, None], -torch.inf).softmax(dim=-1) @ v


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("value_width", [8, 12])
def test_each_query_attends_to_the_keys_that_it_sees(dtype: torch.dtype, value_width: int) -> None:
    q, k, v = random(2, 3, 4, 8), random(2, 3, 6, 8, seed=1), random(2, 3, 6, value_width, seed=2)
    of_each = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(3)) < 0.5
    of_each[..., 0] = True
    for seen in (of_each, of_each[:1]):
        found = attend(q.to(dtype), k.to(dtype), v.to(dtype), seen)
        torch.testing.assert_close(found.double(), expected(q, k, v, seen), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("num_queries", "value_width"), [(6, 8), (6, 12), (4, 8), (1, 8)])
def test_a_causal_attention_hides_the_keys_after_each_query(
    dtype: torch.dtype, num_queries: int, value_width: int
) -> None:
    q, k, v = random(2, 3, num_queries, 8), random(2, 3, 6, 8, seed=1), random(2, 3, 6, value_width, seed=2)
    seen = torch.arange(6) <= torch.arange(num_queries)[:, None] + 6 - num_queries
    found = attend(q.to(dtype), k.to(dtype), v.to(dtype), causal=True)
    torch.testing.assert_close(found.double(), expected(q, k, v, seen[None]), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("elements", "heads"), [(1, [1] * 6), (24, [1] * 6), (48, [2, 2, 2]), (100, [4, 2]), (TILE_ELEMENTS, [6])]
)
def test_as_many_heads_are_computed_at_once_as_their_scores_may_take(
    elements: int, heads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.attention.cpu, "TILE_ELEMENTS", elements)
    q, k = random(6, 4, 8), random(6, 6, 8, seed=1)
    tiles = list(model.attention.cpu._tiles(q, k, None))
    assert [part.stop - part.start for part, _, _ in tiles] == heads
    assert [scores.shape for _, scores, _ in tiles] == [(number, 4, 6) for number in heads]


@pytest.mark.parametrize(
    ("num_queries", "is_causal", "mask"), [(6, True, None), (4, False, (1, 1, 4, 6)), (1, False, None)]
)
def test_kernels_are_told_that_later_keys_are_hidden_and_given_a_mask_where_they_cannot_be(
    num_queries: int, is_causal: bool, mask: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def recorded(*tensors: Tensor, **options: object) -> Tensor:
        asked.append(options)
        return real(*tensors, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    q, k = random(2, 3, num_queries, 8), random(2, 3, 6, 8, seed=1)
    attend(q, k, k, causal=True)
    (options,) = asked
    given = options["attn_mask"]
    assert (options["is_causal"], None if given is None else tuple(given.shape)) == (is_causal, mask)  # type: ignore[attr-defined]
