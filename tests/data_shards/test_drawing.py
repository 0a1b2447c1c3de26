"""What a person is shown of values: pictures of any channels and numbers, curves, words."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_shards.modalities.drawing import draw_picture, draw_values, write_words

NAN, INF = np.nan, np.inf


def cell() -> Axes:
    return Figure().subplots()


@pytest.mark.parametrize(
    ("values", "is_unit", "bright"),
    [
        (np.array([0, 51, 255], np.uint8), False, [0, 0.2, 1]),
        (np.array([0, 51, 255], np.uint8), True, [0, 0.2, 1]),
        (np.array([-0.5, 0.25, 0.75, 1.5]), True, [0, 0.25, 0.75, 1]),
        # The lowest is black, the highest white.
        (np.array([-2.0, 0.0, 6.0]), False, [0, 0.25, 1]),
        (np.array([0.25, 0.5, 0.75]), False, [0, 0.5, 1]),
        (np.array([100, 300, 200], np.uint16), False, [0, 1, 0.5]),
        (np.array([NAN, 3.0, INF, 5.0, -INF]), False, [0, 0, 0, 1, 0]),
        (np.array([7.0, 7.0]), False, [0, 0]),
        (np.array([NAN, NAN]), False, [0, 0]),
    ],
)
def test_a_picture_is_as_bright_as_its_values_are_high(values: np.ndarray, is_unit: bool, bright: list[float]) -> None:
    for channels in (1, 3):
        axes = cell()
        draw_picture(axes, values[None, :, None].repeat(channels, axis=2), is_unit=is_unit)
        (image,) = axes.images
        assert image.get_clim() == (0, 1)
        assert image.get_cmap().name == "gray"
        found = np.asarray(image.get_array()).reshape(-1, channels)
        np.testing.assert_allclose(found, np.transpose([bright] * channels), rtol=1e-12)


@pytest.mark.parametrize(
    ("channels", "shown", "note"),
    [(1, 1, []), (2, 1, ["1 of 2"]), (3, 3, []), (4, 3, ["1 to 3 of 4"]), (13, 3, ["1 to 3 of 13"])],
)
def test_channels_that_are_not_seen_are_told(channels: int, shown: int, note: list[str]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    axes = cell()
    draw_picture(axes, values)
    np.testing.assert_array_equal(
        np.asarray(axes.images[0].get_array()).reshape(4, 5, shown), values[..., :shown] / 255
    )
    assert [text.get_text() for text in axes.texts] == note
    for text in axes.texts:
        # In a corner of the picture, whatever its pixels.
        assert text.get_transform() == axes.transAxes
        assert all(0 < place < 0.1 for place in text.get_position())
    assert not axes.axison


@pytest.mark.parametrize(
    ("shape", "num_curves"),
    [((5,), 1), ((5, 1), 1), ((5, 8), 8), ((5, 9), 0), ((9, 5), 5), ((2, 3, 1), 0), ((3, 4, 2), 0)],
)
def test_few_channels_are_curves_and_others_a_map_of_heat(shape: tuple[int, ...], num_curves: int) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    axes = cell()
    draw_values(axes, values)
    assert len(axes.lines) == num_curves
    for number, line in enumerate(axes.lines):
        np.testing.assert_array_equal(line.get_ydata(), values.reshape(len(values), -1)[:, number])
    if not num_curves:
        np.testing.assert_array_equal(axes.images[0].get_array(), values if len(shape) == 2 else values[..., 0])
        # As wide as its cell, however long the array is.
        assert axes.get_aspect() == "auto"


def test_words_stand_in_the_middle_as_they_are() -> None:
    axes = cell()
    write_words(axes, "costs $3 or $4", "red")
    (text,) = axes.texts
    assert (text.get_text(), text.get_color(), text.get_position()) == ("costs $3 or $4", "red", (0.5, 0.5))
    assert (text.get_horizontalalignment(), text.get_verticalalignment(), text.get_wrap(), text.get_parse_math()) == (
        "center",
        "center",
        True,
        False,
    )
    assert not axes.axison
