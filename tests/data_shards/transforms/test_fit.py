"""The fixed shapes of each modality, in training and in evaluation."""

import io
import wave

import numpy as np
import pytest
from PIL import Image

from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transform_config import CropConfig
from data_shards.modalities.transforms import audio, image, points, text, video
from data_shards.sources.digits import Drawn


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def wav(samples: np.ndarray, rate: int = 8_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setparams((1, 2, rate, 0, "NONE", ""))
        opened.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def npy(cloud: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, cloud)
    return file.getvalue()


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = rng().integers(0, 256, (6, 5, 3), np.uint8)
    fitted, length = image.fit(png(pixels), ImageConfig(height=6, width=5), None)
    np.testing.assert_array_equal(fitted, pixels)
    assert length == 6


def test_a_wide_image_is_cut_about_its_centre_and_resized() -> None:
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 40:80] = 255  # the centred square
    fitted, _ = image.fit(png(pixels), ImageConfig(height=10, width=10), None)
    # The filter of the outermost columns reaches beyond the square.
    np.testing.assert_array_equal(fitted[:, 1:-1], np.full((10, 8, 3), 255))
    assert fitted.min() > 200


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, -2), (-3, 2), (5, 5)])
def test_a_shift_moves_pixels_and_brings_in_zeros(down: int, right: int) -> None:
    pixels = rng().integers(1, 256, (5, 5, 3), np.uint8)
    expected = np.zeros_like(pixels)
    for row in range(5):
        for column in range(5):
            if 0 <= row - down < 5 and 0 <= column - right < 5:
                expected[row, column] = pixels[row - down, column - right]
    np.testing.assert_array_equal(image.shift(pixels, down, right), expected)


def test_training_shifts_in_every_direction_as_far_as_allowed() -> None:
    pixels = np.zeros((9, 9), np.uint8)
    pixels[4, 4] = 255
    generator = rng()
    places = {
        tuple(
            np.argwhere(image.fit(png(pixels), ImageConfig(height=9, width=9, shift_pixels=2), generator)[0][..., 0])[0]
        )
        for _ in range(400)
    }
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}


def test_a_long_recording_gives_its_middle_and_in_training_what_is_near_it() -> None:
    ramp = np.arange(100)
    config = AudioConfig(sample_rate=8_000, num_samples=10, jitter_samples=3)
    middle, length, *_ = audio.fit(wav(ramp), config, None)
    np.testing.assert_array_equal(middle * 32_768, ramp[45:55])
    assert length == 10
    generator = rng()
    starts = {round(float(audio.fit(wav(ramp), config, generator)[0][0]) * 32_768) for _ in range(200)}
    assert starts == {42, 43, 44, 45, 46, 47, 48}


def test_a_short_recording_is_padded_and_in_training_moved_within_the_window() -> None:
    config = AudioConfig(sample_rate=8_000, num_samples=10, jitter_samples=50)
    padded, length, *_ = audio.fit(wav(np.full(4, 100)), config, None)
    np.testing.assert_array_equal(padded * 32_768, [100] * 4 + [0] * 6)
    assert length == 4
    generator = rng()
    lengths = set()
    for _ in range(200):
        moved, length, *_ = audio.fit(wav(np.full(4, 100)), config, generator)
        np.testing.assert_array_equal(moved[length - 4 : length] * 32_768, [100] * 4)
        assert np.count_nonzero(moved) == 4
        lengths.add(length)
    assert lengths == set(range(4, 11))


def test_a_clip_gives_frames_of_all_its_parts() -> None:
    clip = Drawn(0, 0, "mp4").read()
    every, *_ = video.fit(clip, VideoConfig(num_frames=8, height=32, width=32), None)
    half, length, *_ = video.fit(clip, VideoConfig(num_frames=4, height=32, width=32), None)
    np.testing.assert_array_equal(half, every[[1, 3, 5, 7]])
    assert length == 4
    drawn, *_ = video.fit(clip, VideoConfig(num_frames=4, height=32, width=32), rng())
    for part, frame in enumerate(drawn):
        assert any(np.array_equal(frame, every[number]) for number in (2 * part, 2 * part + 1))


def test_a_short_clip_is_padded() -> None:
    clip, length, *_ = video.fit(Drawn(0, 0, "mp4").read(), VideoConfig(num_frames=10, height=16, width=16), None)
    assert clip.shape == (10, 16, 16, 3)
    assert length == 8
    assert not clip[8:].any()


def test_a_cloud_is_thinned_without_repeats_or_padded() -> None:
    cloud = rng().normal(size=(50, 3)).astype(np.float32)
    for generator in (None, rng()):
        thinned, length, *_ = points.fit(npy(cloud), PointsConfig(num_points=20), generator)
        assert length == 20
        assert len({row.tobytes() for row in thinned} & {row.tobytes() for row in cloud}) == 20
    padded, length, *_ = points.fit(npy(cloud), PointsConfig(num_points=60), None)
    np.testing.assert_array_equal(padded[:50], cloud)
    assert length == 50
    assert not padded[50:].any()


def test_a_long_text_gives_its_beginning_and_in_training_any_part() -> None:
    ids, length = text.fit(b"abcdef", TextConfig(num_bytes=3), None)
    assert (ids - 6).tolist() == [ord("a"), ord("b"), ord("c")]
    assert length == 3
    generator = rng()
    parts = {bytes((text.fit(b"abcdef", TextConfig(num_bytes=3), generator)[0] - 6).tolist()) for _ in range(100)}
    assert parts == {b"abc", b"bcd", b"cde", b"def"}


def wide_and_tall() -> list[np.ndarray]:
    """A picture of 200 x 50 pixels whose left half is 100 and right half 200, and the same upright."""
    wide = np.full((50, 200, 3), 100, np.uint8)
    wide[:, 100:] = 200
    return [wide, wide.swapaxes(0, 1)]


@pytest.mark.parametrize("generator", [None, np.random.default_rng(0)])
def test_a_stretched_picture_is_all_there(generator: np.random.Generator | None) -> None:
    for picture in wide_and_tall():
        fitted, _ = image.fit(png(picture), ImageConfig(height=8, width=8, fit="stretch"), generator)
        halves = fitted[..., 0] if picture.shape[0] == 50 else fitted[..., 0].T
        np.testing.assert_array_equal(halves[:, [0, 7]], np.broadcast_to([100, 200], (8, 2)))


@pytest.mark.parametrize("generator", [None, np.random.default_rng(0)])
def test_a_padded_picture_keeps_its_aspect_ratio_and_is_black_beside_it(
    generator: np.random.Generator | None,
) -> None:
    for picture in wide_and_tall():
        fitted, _ = image.fit(png(picture), ImageConfig(height=8, width=8, resize="nearest", fit="pad"), generator)
        lying = fitted[..., 0] if picture.shape[0] == 50 else fitted[..., 0].T
        expected = np.zeros((8, 8))
        expected[3:5, :4], expected[3:5, 4:] = 100, 200
        np.testing.assert_array_equal(lying, expected)


def test_a_cut_picture_is_its_centre_in_training_too() -> None:
    picture = np.zeros((50, 200, 3), np.uint8)
    picture[:, 75:125] = 255
    for generator in (None, rng()):
        fitted, _ = image.fit(png(picture), ImageConfig(height=5, width=5, resize="nearest"), generator)
        assert fitted.min() == 255


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_random_part_is_brought_to_its_size_as_asked(fit: str) -> None:
    picture = np.full((50, 200, 3), 255, np.uint8)
    config = ImageConfig(
        height=8, width=8, fit=fit, crop=CropConfig(min_area=1, max_area=1, max_stretch=4, attempts=200)
    )
    fitted, _ = image.fit(png(picture), config, rng())
    assert (fitted == 255).all() == (fit == "stretch")


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_frames_come_to_their_size_as_pictures_do(fit: str) -> None:
    clip = Drawn(0, 0, "mp4").read()
    frames, *_ = video.fit(clip, VideoConfig(num_frames=8, height=32, width=32), None)
    fitted, *_ = video.fit(clip, VideoConfig(num_frames=8, height=8, width=16, fit=fit), None)
    for frame, small in zip(frames, fitted, strict=True):
        np.testing.assert_array_equal(small, image.fit(png(frame), ImageConfig(height=8, width=16, fit=fit), None)[0])


@pytest.mark.parametrize("section", [ImageConfig, VideoConfig])
def test_a_part_about_the_centre_goes_with_cutting_alone(section: type[ImageConfig] | type[VideoConfig]) -> None:
    assert not list(section(fit="pad").problems())
    ((key, sentence),) = section(fit="pad", centre_crop=0.5).problems()
    assert key == "centre_crop"
    assert "got 0.5 and fit=pad" in sentence
