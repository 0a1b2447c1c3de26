"""Heads: from decoded rows and latents to the numbers of an answer."""

import pytest
import torch
from torch import Tensor, nn

from model.outputs.modules.flow_tiles import edge_distances
from model.outputs.modules.heads import EmbeddingHead, GridHead, RowHead, ScaledHead, TextHead
from model.outputs.modules.next_heads import NextIdHead, NextLevelHead
from model.parameters import draw_parameters


def drawn(module: nn.Module) -> nn.Module:
    """The module with random values in every tensor: biases of 0 would hide a slip."""
    draw_parameters(module, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_a_hidden_layer_has_a_tanh_and_comes_before_the_last() -> None:
    rows, head = random(2, 1, 5), drawn(RowHead(5, 3, hidden_layer=True))
    hidden = (rows[:, 0] @ head.hidden.weight.T + head.hidden.bias).tanh()
    torch.testing.assert_close(head(rows), hidden @ head.logits.weight.T + head.logits.bias)
    plain = drawn(RowHead(5, 3, hidden_layer=False))
    assert plain.hidden is None
    torch.testing.assert_close(plain(rows), rows[:, 0] @ plain.logits.weight.T + plain.logits.bias)


@pytest.mark.parametrize("pools", [False, True])
def test_an_embedding_is_a_direction_as_long_as_its_temperature_says(pools: bool) -> None:
    head = EmbeddingHead(5, 3, pools=pools, hidden_layer=False, temperature=0.25)
    draw_parameters(head, 0)
    rows = random(2, 4 if pools else 1, 5)
    answer = head(rows)
    # The root of the inverse of a quarter.
    torch.testing.assert_close(answer.norm(dim=1), torch.full((2,), 2.0))
    row = rows.mean(dim=1) if pools else rows[:, 0]
    torch.testing.assert_close(answer, 2 * nn.functional.normalize(row @ head.row.logits.weight.T))
    # Products of two answers are at most 100.
    with torch.no_grad():
        head.log_scale.fill_(50.0)
    torch.testing.assert_close(head(rows).norm(dim=1), torch.full((2,), 10.0))


def test_a_number_is_brought_to_its_unit_in_float32() -> None:
    head = ScaledHead(nn.Identity(), offset=40_000.0, scale=0.5)
    found = head(torch.tensor([[1.0, -3.0]], dtype=torch.bfloat16))
    assert found.dtype == torch.float32
    assert found.tolist() == [[40_000.5, 39_998.5]]


def test_a_grid_has_its_shape_where_all_of_it_is_asked_for() -> None:
    head = drawn(GridHead(nn.Linear(5, 2), (2, 3), 4.0))
    rows = random(7, 6, 5)
    expected = (rows @ head.values.weight.T + head.values.bias) / 4
    torch.testing.assert_close(head(rows, whole=True), expected.view(7, 2, 3, 2))
    torch.testing.assert_close(head(rows[:, :4], whole=False), expected[:, :4])


def test_logits_of_a_text_are_products_with_its_embedding() -> None:
    table, rows = random(9, 5), random(2, 4, 5)
    head = drawn(TextHead(9, lambda: table))
    assert not any(name.startswith("embedding") for name in head.state_dict())
    torch.testing.assert_close(head(rows), rows @ table.T + head.bias)


@pytest.mark.parametrize("width", [5, 8])
def test_the_next_id_is_told_by_a_norm_and_the_embedding(width: int) -> None:
    table, latents = random(9, 5), random(2, 4, width)
    head = drawn(NextIdHead(width, 5, 9, lambda: table))
    # Latents as wide as the embedding need no layer between.
    assert isinstance(head.project, nn.Identity) == (width == 5)
    torch.testing.assert_close(head(latents), head.project(head.norm(latents)) @ table.T + head.ids.bias)


def test_the_next_cell_has_levels_channel_by_channel() -> None:
    head, latents = drawn(NextLevelHead(5, 3, 4)), random(2, 6, 5)
    found = head(latents)
    assert found.shape == (2, 6, 3, 4)
    torch.testing.assert_close(found.flatten(2), head.levels(head.norm(latents)))


def test_the_weights_of_a_tile_rise_by_one_a_pixel_from_its_edge() -> None:
    assert edge_distances(3, 5).tolist() == [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    assert edge_distances(1, 4).tolist() == [[1, 1, 1, 1]]
