"""What a network answered is written as other programs read it, value by value."""

import io
import wave

import numpy as np
import pytest
from PIL import Image

from data_shards.modalities import encoding
from data_shards.modalities.decoding.flow import motion

NAN, INF = np.nan, np.inf


def opened(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as file:
        assert file.format == "PNG"
        return np.asarray(file)


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        ([0.0, 1.0, 0.5, 0.2], [0, 255, 128, 51]),
        # Half a step is rounded to the nearest.
        ([1.4 / 255, 1.6 / 255, 254.6 / 255], [1, 2, 255]),
        # What is outside of the range, or is no number.
        ([-0.5, 1.5, NAN, INF, -INF], [0, 255, 0, 255, 0]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_of_values_from_0_to_1_is_one_of_bytes(values: list[float], pixels: list[int], channels: int) -> None:
    found = opened(encoding.png(np.repeat(np.array(values, np.float32)[None, :, None], channels, axis=2)))
    expected = np.array(pixels, np.uint8)[None]
    np.testing.assert_array_equal(found, expected if channels == 1 else expected[..., None].repeat(channels, axis=2))


def test_an_animation_has_all_frames_without_loss_a_tenth_of_a_second_each() -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3))
    with Image.open(io.BytesIO(encoding.animation(values / 255))) as file:
        assert (file.format, file.n_frames) == ("WEBP", 3)  # type: ignore[attr-defined]  # of animations
        for number in range(3):
            file.seek(number)
            np.testing.assert_array_equal(np.asarray(file.convert("RGB")), values[number])
            assert file.info["duration"] == 100


@pytest.mark.parametrize("channels", [1, 2])
def test_a_recording_has_16_bits_and_full_scale_is_the_largest_of_both_signs(channels: int) -> None:
    values = np.array([0, 1, -1, 0.5, 2, -2, NAN, 1.6 / 32767], np.float32)[:, None].repeat(channels, axis=1)
    content = encoding.wav(values if channels > 1 else values[:, 0], 11_025)
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (channels, 2, 11_025)
        found = np.frombuffer(file.readframes(99), "<i2").reshape(-1, channels)
    expected = np.array([0, 32767, -32767, 16384, 32767, -32767, 0, 2])
    np.testing.assert_array_equal(found, expected[:, None].repeat(channels, axis=1))


def test_motion_comes_back_from_its_file_and_is_far_beyond_the_unknown_where_it_is_not_known() -> None:
    values = np.array([[[0.5, -2], [NAN, 1], [3, 4]]])
    content = encoding.flo(values)
    np.testing.assert_array_equal(motion(content), [[[0.5, -2], [NAN, NAN], [3, 4]]])
    assert np.frombuffer(content, "<f4", offset=12)[2] == np.float32(1e10)


@pytest.mark.parametrize(
    ("vector", "colour"),
    [
        # Red to the right, then along the circle of hues, clockwise as the picture is seen.
        ((2, 0), (255, 0, 0)),
        ((0, 2), (127, 255, 0)),
        ((-2, 0), (0, 255, 255)),
        ((0, -2), (129, 0, 255)),
        # Half as long as the longest: half as much colour.
        ((1, 0), (255, 127, 127)),
        ((0, 0), (255, 255, 255)),
        ((NAN, NAN), (255, 255, 255)),
    ],
)
def test_the_hue_of_motion_is_its_direction_and_the_saturation_its_length(
    vector: tuple[float, float], colour: tuple[int, int, int]
) -> None:
    found = opened(encoding.motion_picture(np.array([[vector, (2, 0)]])))
    # A step of hue is six of a colour.
    np.testing.assert_allclose(found[0, 0].astype(int), colour, atol=3)


def test_a_picture_without_motion_is_white() -> None:
    np.testing.assert_array_equal(opened(encoding.motion_picture(np.zeros((2, 3, 2)))), np.full((2, 3, 3), 255))
