"""Tiles cover the frames, and blend to what each of them says."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.outputs.modules.flow_tiles import edge_distances, tile_starts, tiled_flow


@settings(max_examples=50, deadline=None)
@given(tile=st.integers(2, 30), extra=st.integers(0, 100), share=st.floats(0, 0.9))
def test_tiles_reach_both_edges_and_overlap_enough(tile: int, extra: int, share: float) -> None:
    overlap = int(share * tile)
    starts = tile_starts(tile + extra, tile, overlap)
    assert (starts[0], starts[-1]) == (0, extra)
    assert all(0 < later - start <= tile - overlap for start, later in pairwise(starts))


def test_six_tiles_cover_a_sintel_frame() -> None:
    assert len(tile_starts(436, 368, 20)) * len(tile_starts(1024, 496, 20)) == 6


def test_the_weight_falls_to_the_edges() -> None:
    assert edge_distances(3, 4).tolist() == [[1, 1, 1, 1], [1, 2, 2, 1], [1, 1, 1, 1]]


def test_tiles_that_agree_blend_to_what_they_say() -> None:
    frames = torch.rand(2, 2, 9, 13, 3, generator=torch.Generator().manual_seed(0))

    def first_channels(tile: Tensor) -> Tensor:
        return tile[:, 0, :, :, :2]

    torch.testing.assert_close(tiled_flow(first_channels, frames, (6, 5), min_overlap=2), frames[:, 0, :, :, :2])


def test_tiles_that_disagree_blend_by_the_distance_to_their_edge() -> None:
    frames = torch.zeros(1, 2, 1, 4, 3)
    answers = iter([torch.zeros(1, 1, 3, 2), torch.ones(1, 1, 3, 2)])
    flow = tiled_flow(lambda _: next(answers), frames, (1, 3), min_overlap=2)
    # One row: every pixel is at an edge, all weights are 1.
    assert flow[0, 0, :, 0].tolist() == [0, 0.5, 0.5, 1]


def test_frames_smaller_than_a_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="a tile has 5"):
        tile_starts(4, 5, 1)


@pytest.mark.parametrize("overlap", [-1, 5, 6])
def test_an_overlap_of_a_whole_tile_or_of_less_than_nothing_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match=rf"^min_overlap: expected 0 to 4, got {overlap}$"):
        tile_starts(9, 5, overlap)
    # A single tile overlaps with nothing.
    assert tile_starts(5, 5, overlap) == [0]


def test_tiles_are_as_few_as_overlap_enough() -> None:
    assert tile_starts(10, 5, 0) == [0, 5]
    assert tile_starts(10, 5, 1) == [0, 2, 5]
    assert tile_starts(9, 5, 4) == [0, 1, 2, 3, 4]


def test_tiles_overlap_by_twenty_pixels_where_nothing_else_is_asked_for() -> None:
    def widths(**asked: int) -> int:
        calls: list[Tensor] = []

        def predict(tile: Tensor) -> Tensor:
            calls.append(tile)
            return tile[:, 0, :, :, :2]

        tiled_flow(predict, torch.zeros(1, 2, 1, 59, 3), (1, 40), **asked)
        return len(calls)

    # 59 columns are covered by two tiles of 40 that share 21 of them, and by three that share more.
    assert (widths(), widths(min_overlap=20), widths(min_overlap=21), widths(min_overlap=22)) == (2, 2, 2, 3)
