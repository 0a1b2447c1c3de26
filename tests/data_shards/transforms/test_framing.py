import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.transform_config import CropConfig
from data_shards.modalities.transforms.framing import centre_box, cut, framed, random_box, resize, usual_box, whole_box


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), height=st.integers(1, 64), width=st.integers(1, 64))
@settings(max_examples=100, deadline=None)
def test_the_centre_box_is_the_largest_of_its_aspect(rows: int, columns: int, height: int, width: int) -> None:
    left, top, right, bottom = centre_box(np.zeros((rows, columns, 3), np.uint8), height, width)
    assert (right - left) * height == pytest.approx((bottom - top) * width)
    assert (left, top) == pytest.approx((columns - right, rows - bottom), abs=1e-6)
    assert min(left, top) == pytest.approx(0, abs=1e-6)


def test_a_part_of_the_centre_is_that_part_of_the_shorter_side() -> None:
    box = centre_box(np.zeros((100, 200, 3), np.uint8), 32, 32, 0.875)
    assert box == (56.25, 6.25, 143.75, 93.75)


@given(rows=st.integers(1, 200), columns=st.integers(1, 200), seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_random_box_lies_in_the_picture_with_the_area_and_stretch_asked_for(
    rows: int, columns: int, seed: int
) -> None:
    picture = np.zeros((rows, columns, 3), np.uint8)
    box = random_box(picture, CropConfig(), np.random.default_rng(seed))
    if box is None:
        return
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    assert cut(picture, box).shape == (height, width, 3)
    # Sides are whole pixels: each may be off by half of one.
    assert (width + 0.5) * (height + 0.5) >= 0.08 * rows * columns
    assert (width + 0.5) / (height - 0.5) >= 3 / 4
    assert (width - 0.5) / (height + 0.5) <= 4 / 3


def test_random_boxes_cover_areas_evenly_and_all_places() -> None:
    generator = rng()
    picture = np.zeros((100, 100, 3), np.uint8)
    boxes = [box for box in (random_box(picture, CropConfig(), generator) for _ in range(2000)) if box]
    assert len(boxes) > 1900
    areas = np.array([(right - left) * (bottom - top) for left, top, right, bottom in boxes]) / 10_000
    # Uniform from 0.08 to 1 (mean 0.54), thinned at the top, where stretched boxes do not fit.
    assert 0.44 < areas.mean() < 0.54
    assert np.histogram(areas, [0.08, 0.2, 0.3, 0.4, 0.5])[0] / 2000 == pytest.approx(
        [0.13, 0.11, 0.11, 0.11], abs=0.03
    )
    flat = sum(right - left > bottom - top for left, top, right, bottom in boxes)
    assert flat / len(boxes) == pytest.approx(0.5, abs=0.06)
    assert min(box[0] for box in boxes) == 0
    assert max(box[2] for box in boxes) == 100


def test_a_picture_too_narrow_for_any_box_gives_none() -> None:
    assert random_box(np.zeros((1, 500, 3), np.uint8), CropConfig(min_area=0.9), rng()) is None


def kernel(method: str, x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    match method:
        case "bilinear":
            return np.maximum(0, 1 - x)
        case "bicubic":  # Keys, a = -0.5
            return np.where(
                x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0)
            )
        case _:  # Lanczos with three lobes
            return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def whole(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255))


def weights(method: str, length: int, start: float, end: float, wanted: int) -> np.ndarray:
    """The filter stretched by the scale where the picture shrinks, centred on each new pixel."""
    scale = (end - start) / wanted
    stretch = max(scale, 1)
    centres = start + (np.arange(wanted)[:, None] + 0.5) * scale
    raw = kernel(method, (np.arange(length)[None] + 0.5 - centres) / stretch)
    return raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("height", "width"), [(7, 9), (40, 50), (16, 64)])
def test_resizing_is_the_filter_that_it_names(method: str, height: int, width: int) -> None:
    pixels = np.kron(rng().integers(0, 256, (8, 10, 3)), np.ones((3, 3, 1))).astype(np.uint8)
    box = (2.0, 3.0, 27.0, 23.0)
    resized = resize(pixels, box, height, width, method)
    down, across = weights(method, 24, 3, 23, height), weights(method, 30, 2, 27, width)
    # Pillow clips to whole values between the two directions, and begins with the one that leaves less to do.
    orders = [
        whole(np.einsum("hi,iwc->hwc", down, whole(np.einsum("wj,ijc->iwc", across, pixels)))),
        whole(np.einsum("wj,hjc->hwc", across, whole(np.einsum("hi,ijc->hjc", down, pixels)))),
    ]
    # Its weights are fixed-point numbers: a value near a half may fall to the other side, in each direction.
    assert min(np.abs(resized - expected).max() for expected in orders) <= 2


def test_the_nearest_pixel_is_the_nearest() -> None:
    pixels = rng().integers(0, 256, (4, 4, 3), np.uint8)
    np.testing.assert_array_equal(resize(pixels, (0, 0, 4, 4), 8, 8, "nearest"), pixels.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(resize(pixels, (0, 0, 4, 4), 2, 2, "nearest"), pixels[1::2, 1::2])


def test_boxes_are_left_top_right_and_bottom() -> None:
    picture = np.zeros((3, 5, 2), np.uint8)
    assert whole_box(picture) == usual_box(picture, ImageConfig(fit="pad")) == (0, 0, 5, 3)
    assert usual_box(picture, ImageConfig(height=2, width=2, centre_crop=0.5)) == (1.75, 0.75, 3.25, 2.25)
    assert random_box(np.zeros((1, 1, 3)), CropConfig(min_area=1.0), rng()) == (0, 0, 1, 1)


def test_a_part_of_the_size_that_is_asked_for_is_not_the_whole() -> None:
    pixels = rng().integers(0, 256, (4, 4, 3), np.uint8)
    part = pixels[1:3, 2:4].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(resize(pixels, (2, 1, 4, 3), 4, 4, "nearest"), part)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        # As wide as the frame, at half its height; as high; of one aspect.
        ((2, 3, 6, 5), slice(2, 6), slice(0, 8)),
        ((5, 1, 6, 5), slice(0, 8), slice(3, 5)),
        ((4, 2, 8, 6), slice(0, 8), slice(0, 8)),
        # So flat and so narrow that a row or a column is all that is left.
        ((0, 5, 40, 6), slice(3, 4), slice(0, 8)),
        ((7, 0, 8, 40), slice(0, 8), slice(3, 4)),
    ],
)
def test_a_part_keeps_its_aspect_about_the_centre_of_a_black_picture(
    box: tuple[int, int, int, int], rows: slice, columns: slice
) -> None:
    left, top, right, bottom = box
    pixels = rng().integers(1, 256, (40, 40, 3), np.uint8)
    found = framed(pixels, box, ImageConfig(height=8, width=8, fit="pad", resize="nearest"))
    expected = np.zeros((8, 8, 3), np.uint8)
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    # The pixel under the centre of each new one.
    down = top + np.floor((np.arange(high) + 0.5) * (bottom - top) / high).astype(int)
    across = left + np.floor((np.arange(wide) + 0.5) * (right - left) / wide).astype(int)
    expected[rows, columns] = pixels[np.ix_(down, across)]
    np.testing.assert_array_equal(found, expected)
