from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from data_shards.modalities.transform_config import RandAugmentConfig
from data_shards.modalities.transforms.randaugment import GREY, OPERATIONS, randaugment


def picture() -> np.ndarray:
    rows, columns = np.mgrid[:60, :80]
    return np.stack([rows * 4, columns * 3, (rows + columns) % 250], axis=-1).astype(np.uint8)


def upright() -> np.ndarray:
    return np.ascontiguousarray(picture().swapaxes(0, 1))


def apply(name: str, strength: float, seed: int = 0, pixels: np.ndarray | None = None) -> np.ndarray:
    image = Image.fromarray(picture() if pixels is None else pixels)
    return np.asarray(OPERATIONS[name](image, strength, np.random.default_rng(seed)))


def test_there_are_sixteen_operations_and_each_keeps_the_shape() -> None:
    assert len(OPERATIONS) == 16
    for name in OPERATIONS:
        for strength in (0, 0.5, 1):
            assert apply(name, strength).shape == (60, 80, 3)


@pytest.mark.parametrize("name", ["colour", "contrast", "brightness", "sharpness"])
def test_enhancements_do_nothing_at_magnitude_5(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    np.testing.assert_array_equal(apply(name, 0.5, pixels=noise), noise)
    assert (apply(name, 1, pixels=noise) != noise).any()


def test_operations_on_values_are_their_definitions() -> None:
    values = picture()
    np.testing.assert_array_equal(apply("invert", 0.5), 255 - values)
    np.testing.assert_array_equal(apply("posterize", 0.5), values & 0b11000000)
    np.testing.assert_array_equal(apply("solarize", 0.5), np.where(values < 128, values, 255 - values))
    added = np.clip(values.astype(int) + 55, 0, 255)
    np.testing.assert_array_equal(apply("solarize_add", 0.5), np.where(values < 128, added, values))
    np.testing.assert_array_equal(apply("brightness", 0), np.floor(values * 0.1))


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        # The upper four bits at the greatest strength, none at the least.
        ("posterize", 1, lambda values: values & 0b11110000),
        ("posterize", 0, lambda values: values * 0),
        ("solarize", 0, lambda values: 255 - values),
        ("solarize", 0.8, lambda values: np.where(values < 204, values, 255 - values)),
        ("solarize_add", 1, lambda values: np.where(values < 128, values + 110, values)),
        ("brightness", 1, lambda values: np.minimum(np.floor(values * 1.9 + 1e-6), 255)),
    ],
)
def test_the_ends_of_a_strength_are_those_of_the_released_code(
    name: str, strength: float, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    np.testing.assert_array_equal(apply(name, strength), expected(picture().astype(int)))


def test_the_greatest_way_angle_and_square_are_those_of_the_released_code() -> None:
    black = np.zeros((300, 300, 3), np.uint8)
    for name, axis in (("translate_x", 0), ("translate_y", 1)):
        moved = (apply(name, 1, pixels=black) == GREY).all(axis=-1).all(axis=axis)
        assert moved.sum() == 100
    squares = [(apply("cutout", 1, seed, black) == GREY).all(axis=-1) for seed in range(20)]
    assert max(int(square.any(axis=0).sum()) for square in squares) == 80
    assert max(int(square.any(axis=1).sum()) for square in squares) == 80
    line = black.copy()
    line[149:152] = 255
    turned = (apply("rotate", 1, pixels=line) == 255).all(axis=-1)
    middle = [np.flatnonzero(turned[:, column]).mean() for column in (50, 250)]
    # 200 columns further, 30 degrees are 115.5 rows.
    assert abs(middle[1] - middle[0]) == pytest.approx(200 * np.tan(np.pi / 6), abs=1.5)


def test_auto_contrast_and_equalize_use_the_whole_range() -> None:
    dull = (picture() // 4 + 90).astype(np.uint8)
    for name in ("auto_contrast", "equalize"):
        stretched = apply(name, 0.5, pixels=dull)
        assert stretched.min(axis=(0, 1)).max() == 0
        assert stretched.max(axis=(0, 1)).min() > 240


@pytest.mark.parametrize(("name", "axis"), [("translate_x", 1), ("translate_y", 0)])
def test_a_translation_moves_both_ways_and_brings_in_grey(name: str, axis: int) -> None:
    plain = picture()
    seen = set()
    for seed in range(20):
        moved = np.moveaxis(apply(name, 0.1, seed), axis, 0)
        expected = np.moveaxis(plain, axis, 0)
        if (moved[:10] == GREY).all():
            np.testing.assert_array_equal(moved[10:], expected[:-10])
            seen.add("forth")
        else:
            assert (moved[-10:] == GREY).all()
            np.testing.assert_array_equal(moved[:-10], expected[10:])
            seen.add("back")
    assert seen == {"forth", "back"}


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_a_shear_moves_rows_in_proportion(name: str) -> None:
    # Of columns as of rows.
    sheared = apply(name, 1, pixels=picture()) if name == "shear_x" else apply(name, 1, pixels=upright()).swapaxes(0, 1)
    starts = [int(np.argmax((row != GREY).any(axis=1))) for row in sheared]
    ends = [int(np.argmax((row[::-1] != GREY).any(axis=1))) for row in sheared]
    moved = max((starts, ends), key=sum)
    # 0.3 pixels a row, to the nearest.
    np.testing.assert_allclose(moved, 0.3 * np.arange(60), atol=1)


def test_a_rotation_turns_about_the_centre() -> None:
    turned = apply("rotate", 1)
    np.testing.assert_allclose(turned[30, 40].astype(int), picture()[30, 40], atol=6)
    assert (turned[0, 0] == GREY).all()
    assert (turned[-1, -1] == GREY).all()


def test_a_cutout_greys_a_square() -> None:
    for seed in range(10):
        changed = (apply("cutout", 0.25, seed, np.zeros((60, 80, 3), np.uint8)) == GREY).all(axis=-1)
        rows, columns = np.where(changed.any(axis=1))[0], np.where(changed.any(axis=0))[0]
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 10 <= len(rows) <= 20
        assert 10 <= len(columns) <= 20


def test_a_cutout_reaches_every_border() -> None:
    assert (apply("cutout", 1, pixels=np.zeros((20, 20, 3), np.uint8)) == GREY).all()


def test_a_magnitude_is_ten_times_the_strength() -> None:
    config = RandAugmentConfig(num_layers=1, magnitude=9)
    results = {randaugment(picture(), config, np.random.default_rng(seed)).tobytes() for seed in range(120)}
    for name in ("posterize", "solarize", "brightness", "solarize_add"):
        assert apply(name, 0.9).tobytes() in results


def test_layers_are_drawn_from_all_operations_by_the_generator() -> None:
    config = RandAugmentConfig(num_layers=4, magnitude=5)
    first, again, other = (randaugment(picture(), config, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    one = RandAugmentConfig(num_layers=1, magnitude=9)
    results = {randaugment(picture(), one, np.random.default_rng(seed)).tobytes() for seed in range(300)}
    # Five of the sixteen draw a direction or a place as well.
    assert len(results) >= 16 + 5
