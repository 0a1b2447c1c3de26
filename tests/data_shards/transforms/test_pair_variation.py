"""Pairs of frames in training: whatever is done to them, the motion still leads from the first to the second."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_options import encoded, flo

from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.modality import Members, select
from data_shards.modalities.transform_config import ColourConfig, EraseConfig, ScaleConfig
from data_shards.modalities.transforms.colour import jitter
from data_shards.modalities.transforms.flow import fit

HEIGHT, WIDTH, RIGHT, DOWN = 60, 80, 3, 2
SLOPE_X, SLOPE_Y = 2, 1
CONFIG = FlowConfig(height=24, width=32)


def ramp(right: int = 0, down: int = 0) -> np.ndarray:
    """A picture whose brightness rises evenly to the right and down, moved by some pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    grey = 20 + SLOPE_X * (x - right) + SLOPE_Y * (y - down)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def pair(motion: np.ndarray | None = None) -> Members:
    moved = np.full((HEIGHT, WIDTH, 2), (RIGHT, DOWN), np.float32) if motion is None else motion
    second = ramp(RIGHT, DOWN)
    return select(CONFIG, {"first.png": encoded(ramp()), "second.png": encoded(second), "flo": flo(moved)})


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": ScaleConfig(probability=1.0)},
        {"scale": ScaleConfig(1.0, -1.0, 1.0, 1.0, 0.5)},
        {"flip": True, "upside_down": 0.5},
        {"scale": ScaleConfig(), "flip": True, "upside_down": 0.5},
    ],
)
def test_the_motion_leads_from_the_first_frame_to_the_second(changes: dict[str, object]) -> None:
    seen = set()
    for seed in range(12):
        frames, motion = fit(pair(), replace(CONFIG, **changes), np.random.default_rng(seed))
        assert (frames.shape, motion.shape) == ((2, 24, 32, 3), (24, 32, 2))
        first, second = frames[..., 0].astype(float)
        slope_x, slope_y = (np.diff(first, axis=axis).mean() for axis in (1, 0))
        right, down = motion.reshape(-1, 2).mean(axis=0)
        # Brightness moves with the pixels: what the second frame lost is the way times the slope.
        lost = slope_x * right + slope_y * down
        assert (first - second).mean() == pytest.approx(lost, abs=0.7)  # half a step of rounding a frame, and the edges
        assert lost == pytest.approx(RIGHT * SLOPE_X + DOWN * SLOPE_Y, abs=0.7)
        seen.add((round(float(right), 2), round(float(down), 2)))
    assert len(seen) > 3, "the pair is never changed"


def test_no_side_becomes_shorter_than_what_is_cut() -> None:
    config = FlowConfig(height=HEIGHT, width=WIDTH, scale=ScaleConfig(1.0, -3.0, -3.0))
    frames, motion = fit(pair(), config, np.random.default_rng(0))
    np.testing.assert_array_equal(frames[0], ramp())
    np.testing.assert_allclose(motion[5, 5], [RIGHT, DOWN])


def test_unknown_motion_stays_unknown_in_a_larger_pair() -> None:
    motion = np.full((HEIGHT, WIDTH, 2), 1.0, np.float32)
    motion[:, np.arange(WIDTH) % 12 < 4] = 1e9
    _, found = fit(pair(motion), replace(CONFIG, scale=ScaleConfig(1.0, 1.0, 1.0, 0.0)), np.random.default_rng(3))
    known = np.isfinite(found)
    assert 0 < known.mean() < 1
    np.testing.assert_allclose(found[known], 2.0)


def test_a_reversed_pair_leads_from_the_second_frame_to_the_first() -> None:
    config = FlowConfig(height=HEIGHT, width=WIDTH, reverse=1.0)
    frames, motion = fit(pair(), config, np.random.default_rng(0))
    np.testing.assert_array_equal(frames, np.stack([ramp(RIGHT, DOWN), ramp()]))
    # To the first rows and columns of the second frame nothing of the first one leads.
    np.testing.assert_array_equal(motion[DOWN:, RIGHT:], np.full((HEIGHT - DOWN, WIDTH - RIGHT, 2), (-RIGHT, -DOWN)))
    assert np.isnan(motion[:DOWN]).all()
    assert np.isnan(motion[:, :RIGHT]).all()


def test_where_pixels_of_other_motions_lead_the_motion_back_is_unknown() -> None:
    there = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    # Over another pixel; half a pixel further; to where it is not known; far out of the picture.
    there[10, 10], there[20, 20], there[30, 30], there[40, 40] = (2, 0), (0.6, 0), 1e9, (1e8, 0)
    _, back = fit(pair(there), FlowConfig(height=HEIGHT, width=WIDTH, reverse=1.0), np.random.default_rng(0))
    expected = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    expected[[10, 10, 20, 30, 40], [10, 12, 20, 30, 40]] = np.nan
    expected[20, 21] = (-0.3, 0)
    np.testing.assert_allclose(back, expected, atol=1e-6)


@pytest.mark.parametrize(("second", "back"), [((1, 0), (-1.5, 0)), ((1, 1.001), (np.nan, np.nan))])
def test_motions_that_differ_by_a_pixel_at_most_lead_back_by_their_middle(
    second: tuple[float, float], back: tuple[float, float]
) -> None:
    there = np.full((HEIGHT, WIDTH, 2), np.nan, np.float32)
    there[10, 10], there[10, 11] = (2, 0), second
    if second[1]:
        # One row further up: both lead to one pixel.
        there[10, 11], there[9, 11] = np.nan, second
    _, found = fit(pair(there), FlowConfig(height=HEIGHT, width=WIDTH, reverse=1.0), np.random.default_rng(0))
    expected = np.full((HEIGHT, WIDTH, 2), np.nan)
    expected[10, 12] = back
    np.testing.assert_allclose(found, expected)


def test_a_pair_without_motion_is_read_where_none_is_needed() -> None:
    config = replace(CONFIG, needs_motion=False)
    frames, motion = fit(select(config, {"first.png": encoded(ramp()), "second.png": encoded(ramp())}), config, None)
    assert frames.shape == (2, 24, 32, 3)
    assert motion.shape == (24, 32, 2)
    assert np.isnan(motion).all()


def test_pairs_are_reversed_as_often_as_is_asked_and_never_in_evaluation() -> None:
    config = FlowConfig(height=HEIGHT, width=WIDTH, reverse=0.5)
    firsts = [fit(pair(), config, np.random.default_rng(seed))[0][0] for seed in range(40)]
    assert 10 < sum(np.array_equal(first, ramp()) for first in firsts) < 30
    np.testing.assert_array_equal(fit(pair(), config, None)[0][0], ramp())


def test_both_frames_have_one_colour_unless_they_are_to_draw_their_own() -> None:
    alike = select(
        CONFIG, {"first.png": encoded(ramp()), "second.png": encoded(ramp()), "flo": flo(np.zeros((60, 80, 2)))}
    )
    for probability, expected in ((0.0, True), (1.0, False)):
        config = replace(CONFIG, colour=ColourConfig(), unequal_colour=probability)
        frames, _ = fit(alike, config, np.random.default_rng(0))
        assert np.array_equal(*frames) == expected


def test_what_covers_the_second_frame_changes_neither_the_first_nor_the_motion() -> None:
    covered = replace(CONFIG, erase=EraseConfig(1.0, 4, 8))
    plain, motion = fit(pair(), CONFIG, np.random.default_rng(0))
    frames, same = fit(pair(), covered, np.random.default_rng(0))
    np.testing.assert_array_equal(frames[0], plain[0])
    np.testing.assert_array_equal(same, motion)
    assert 0 < (frames[1] != plain[1]).any(axis=-1).mean() < 0.5


class _Third:
    """Draws a third of the circle, and factors of 1."""

    @staticmethod
    def uniform(low: float, high: float, size: int | None = None) -> object:
        return np.zeros(size) if size else high / 3 if low < 0 else 0.0


def test_a_third_of_the_circle_makes_red_blue_and_leaves_grey() -> None:
    colours = np.array([[[[200, 0, 0], [0, 200, 0], [90, 90, 90]]]], np.float32)
    turned = jitter(colours, ColourConfig(0, 0, 0, hue=0.5), _Third())  # type: ignore[arg-type]  # of a generator
    # A sixth of the circle: half of a third.
    again = jitter(turned, ColourConfig(0, 0, 0, hue=0.5), _Third())  # type: ignore[arg-type]
    np.testing.assert_allclose(again[0, 0], [[0, 0, 200], [200, 0, 0], [90, 90, 90]], atol=1e-3)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (FlowConfig(unequal_colour=0.5), "unequal_colour"),
        (FlowConfig(upside_down=1.5), "upside_down"),
        (FlowConfig(reverse=-0.5), "reverse"),
        (FlowConfig(scale=ScaleConfig(min_power=1.0)), "scale.min_power"),
        (FlowConfig(scale=ScaleConfig(max_stretch_power=9.0)), "scale.max_stretch_power"),
        (FlowConfig(erase=EraseConfig(min_side=200)), "erase.min_side"),
        (FlowConfig(colour=ColourConfig(hue=0.7)), "colour.hue"),
    ],
)
def test_a_slip_is_named_by_its_key(section: FlowConfig, key: str) -> None:
    assert [name for name, _ in section.problems()] == [key]
