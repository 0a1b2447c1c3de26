"""What training draws: each transform does what it says, follows its generator, and leaves evaluation alone."""

import io

import numpy as np
import pytest
from PIL import Image

from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transform_config import (
    ColourConfig,
    CropConfig,
    LogMelConfig,
    MaskingConfig,
    RandAugmentConfig,
    SpecAugmentConfig,
)
from data_shards.modalities.transforms import audio, image, points, video
from data_shards.modalities.transforms.colour import GREY_WEIGHTS, jitter
from data_shards.modalities.transforms.masking import mask_words
from data_shards.modalities.transforms.spectrogram import spec_augment
from data_shards.modalities.transforms.text import MASK, PAD
from data_shards.modalities.transforms.text import fit as fit_text
from data_shards.sources.digits import Drawn


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(cloud: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, cloud)
    return file.getvalue()


PICTURE = png(rng().integers(0, 256, (40, 60, 3), np.uint8))
FITS = {
    "image": lambda generator: image.fit(
        PICTURE,
        ImageConfig(
            height=16, width=16, resize="bicubic", crop=CropConfig(), flip=True, randaugment=RandAugmentConfig()
        ),
        generator,
    ),
    "audio": lambda generator: audio.fit(
        Drawn(0, 0, "wav").read(),
        AudioConfig(
            sample_rate=8_000,
            num_samples=1_000,
            jitter_samples=50,
            log_mel=LogMelConfig(),
            spec_augment=SpecAugmentConfig(),
        ),
        generator,
    ),
    "video": lambda generator: video.fit(
        Drawn(0, 0, "mp4").read(),
        VideoConfig(
            num_frames=4, height=16, width=16, frame_step=1, crop=CropConfig(), flip=True, colour=ColourConfig()
        ),
        generator,
    ),
    "points": lambda generator: points.fit(
        Drawn(0, 0, "npy").read(), PointsConfig(num_points=64, normalize="unit_cube", scale_jitter=0.01), generator
    ),
}


@pytest.mark.parametrize("modality", FITS)
def test_a_sample_follows_its_generator_and_evaluation_draws_nothing(modality: str) -> None:
    fit = FITS[modality]
    np.testing.assert_array_equal(fit(rng(1))[0], fit(rng(1))[0])
    assert (fit(rng(1))[0] != fit(rng(2))[0]).any()
    np.testing.assert_array_equal(fit(None)[0], fit(None)[0])


def test_every_second_image_is_mirrored() -> None:
    config = ImageConfig(height=40, width=60, flip=True)
    plain, generator = image.fit(PICTURE, config, None)[0], rng()
    mirrored = 0
    for _ in range(200):
        pixels, _ = image.fit(PICTURE, config, generator)
        is_mirrored = not np.array_equal(pixels, plain)
        if is_mirrored:
            np.testing.assert_array_equal(pixels, plain[:, ::-1])
        mirrored += is_mirrored
    # Four standard deviations of a fair coin thrown 200 times.
    assert abs(mirrored - 100) < 29


def test_a_random_crop_is_a_part_of_the_image_resized() -> None:
    # A picture that says where each pixel is from, linear, so that bilinear resizing keeps it.
    rows, columns = np.mgrid[:200, :200]
    where = png(np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8))
    generator = rng()
    spans = []
    for _ in range(100):
        pixels, _ = image.fit(
            where, ImageConfig(height=20, width=20, crop=CropConfig(min_area=0.25, max_area=0.25)), generator
        )
        spans.append(np.ptp(pixels[..., 0].astype(float)) * np.ptp(pixels[..., 1].astype(float)) / (190 * 190))
    # A quarter of the area; the outermost centres of 20 pixels span 19/20 of a side.
    np.testing.assert_allclose(spans, 0.25, atol=0.03)


def test_evaluation_takes_the_centre() -> None:
    rows, columns = np.mgrid[:200, :200]
    where = png(np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8))
    pixels, _ = image.fit(where, ImageConfig(height=100, width=100, centre_crop=0.5, crop=CropConfig()), None)
    np.testing.assert_array_equal(pixels[..., 0], rows[50:150, 50:150])
    np.testing.assert_array_equal(pixels[..., 1], columns[50:150, 50:150])


def test_frames_a_step_apart_come_from_the_middle_and_in_training_from_anywhere() -> None:
    clip = Drawn(0, 0, "mp4").read()
    every, *_ = video.fit(clip, VideoConfig(num_frames=8, height=32, width=32), None)
    middle, length, *_ = video.fit(clip, VideoConfig(num_frames=3, height=32, width=32, frame_step=2), None)
    np.testing.assert_array_equal(middle, every[[1, 3, 5]])
    assert length == 3
    generator = rng()
    starts = set()
    for _ in range(60):
        drawn, *_ = video.fit(clip, VideoConfig(num_frames=3, height=32, width=32, frame_step=2), generator)
        starts.add(next(start for start in range(4) if np.array_equal(drawn, every[start : start + 5 : 2])))
    assert starts == {0, 1, 2, 3}
    short, length, *_ = video.fit(clip, VideoConfig(num_frames=6, height=32, width=32, frame_step=3), None)
    np.testing.assert_array_equal(short[:3], every[[0, 3, 6]])
    assert length == 3


def test_colour_jitter_is_its_definition_and_the_same_for_all_frames() -> None:
    frames = np.broadcast_to(rng().integers(40, 200, (8, 9, 3), np.uint8), (3, 8, 9, 3))
    jittered = jitter(frames, ColourConfig(), rng(3))
    assert (jittered == jittered[:1]).all()
    assert (jittered != frames).any()
    brighter = jitter(frames, ColourConfig(0.5, 0, 0), rng(3)) / frames
    assert brighter.min() >= 0.5 - 0.5 / 40
    assert np.ptp(brighter) < 0.026, "one factor, up to a rounding of 0.5 down here and up there, of values from 40 on"
    paler = jitter(frames, ColourConfig(0, 0, 0.2), rng(3))
    # Saturation keeps the grey, up to rounding.
    np.testing.assert_allclose(paler @ GREY_WEIGHTS, frames @ GREY_WEIGHTS, atol=1)
    harder = jitter(frames, ColourConfig(0, 0.2, 0), rng(3)).astype(float)
    mean = (frames @ GREY_WEIGHTS).mean()
    factors = (harder - mean)[frames - mean > 30] / (frames - mean)[frames - mean > 30]
    assert np.ptp(factors) < 0.04


class Drawn3:
    """Draws three quarters, a quarter and all of the way from the lowest to the highest."""

    @staticmethod
    def uniform(low: float, high: float, size: int) -> np.ndarray:
        assert size == 3
        return low + (high - low) * np.array([0.75, 0.25, 1.0])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colour_jitter_multiplies_by_what_is_drawn(channels: int) -> None:
    frames = rng().normal(100, 30, (2, 4, 5, channels)).astype(np.float32)
    config = ColourConfig(brightness=0.4, contrast=0.2, saturation=0.5)
    found = jitter(frames, config, Drawn3())  # type: ignore[arg-type]  # of a generator
    weights = GREY_WEIGHTS if channels == 3 else np.full(channels, 1 / channels)
    bright = 1.2 * frames.astype(np.float64)
    mean = (bright @ weights).mean()
    contrasted = mean + 0.9 * (bright - mean)
    grey = (contrasted @ weights)[..., None]
    np.testing.assert_allclose(found, grey + 1.5 * (contrasted - grey), rtol=1e-4)


def test_points_are_scaled_one_by_one_then_centred_in_a_cube() -> None:
    cloud = rng().normal(5, 2, (500, 3)).astype(np.float32)
    plain, *_ = points.fit(npy(cloud), PointsConfig(num_points=500), None)
    np.testing.assert_array_equal(plain, cloud)
    scaled, *_ = points.fit(npy(cloud), PointsConfig(num_points=500, scale_jitter=0.01), rng())
    factors = scaled / cloud
    assert np.ptp(factors, axis=1).max() < 1e-5, "x, y and z of a point share their factor"
    assert 0.99 <= factors.min() < 0.991
    assert 1.009 < factors.max() <= 1.01
    centred, *_ = points.fit(npy(cloud), PointsConfig(num_points=500, normalize="centre"), None)
    np.testing.assert_allclose(centred, cloud - cloud.mean(axis=0), atol=1e-5)
    unit, *_ = points.fit(npy(cloud), PointsConfig(num_points=600, normalize="unit_cube"), None)
    assert np.abs(unit).max() == 1
    np.testing.assert_allclose(unit[:500].mean(axis=0), 0, atol=1e-6)
    assert not unit[500:].any()
    single, *_ = points.fit(npy(cloud[:1]), PointsConfig(num_points=2, normalize="unit_cube"), None)
    assert not single.any()


def test_spec_augment_hides_whole_bands_and_stretches_of_what_is_heard() -> None:
    frames = np.ones((50, 40), np.float32)
    config = SpecAugmentConfig(num_time_masks=1, max_time_frames=10, num_bin_masks=1, max_bins=5)
    lengths = []
    for seed in range(300):
        hidden = spec_augment(frames, 30, config, rng(seed)) == 0
        bins, times = hidden.all(axis=0), hidden.all(axis=1)
        np.testing.assert_array_equal(hidden, bins[None] | times[:, None])
        assert np.abs(np.diff(bins.astype(int))).sum() <= 2, "one band"
        assert not times[30:].any(), "nothing is hidden in the padding"
        lengths.append((int(times.sum()), int(bins.sum())))
    assert {time for time, _ in lengths} == set(range(11))
    assert {bin_ for _, bin_ in lengths} == set(range(6))
    assert (frames == 1).all(), "the input is left alone"


def test_whole_words_are_hidden_and_become_the_target() -> None:
    text = "das Maß  ist voll\nund leer".encode()
    ids, length = fit_text(text, TextConfig(num_bytes=40), None)
    words = dict.fromkeys(text.split(), 0)
    for seed in range(400):
        masked, targets = mask_words(ids, length, MaskingConfig(0.3), rng(seed))
        hidden = targets != PAD
        np.testing.assert_array_equal(masked == MASK, hidden)
        np.testing.assert_array_equal(np.where(hidden, targets, masked), ids)
        shown = bytes((np.where(hidden, ord("_") + 6, ids)[:length] - 6).tolist()).split()
        for word, seen in zip(text.split(), shown, strict=True):
            assert seen in (word, b"_" * len(word)), "a word is hidden whole or not at all"
            words[word] += seen != word
    # 0.3, and a little more, since a text of six words has 12 % chance of none, and then one is chosen.
    for count in words.values():
        assert count / 400 == pytest.approx(0.32, abs=0.1)


def test_evaluation_always_hides_the_same_words_of_a_text() -> None:
    results = {}
    for text in (b"one two three four five six", b"seven eight nine ten eleven twelve"):
        ids, length = fit_text(text, TextConfig(num_bytes=40), None)
        first, again = (mask_words(ids, length, MaskingConfig(0.5), None)[1] for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert first.any()
        results[text] = first
    assert len({tuple(targets != PAD) for targets in results.values()}) == 2


def test_a_text_of_white_space_has_nothing_to_hide() -> None:
    ids, length = fit_text(b" \n", TextConfig(num_bytes=4), None)
    masked, targets = mask_words(ids, length, MaskingConfig(1), rng())
    np.testing.assert_array_equal(masked, ids)
    assert not targets.any()


def test_a_recording_at_another_rate_is_resampled() -> None:
    data = Drawn(0, 0, "wav").read()
    plain, *_ = audio.fit(data, AudioConfig(sample_rate=8_000, num_samples=2_000), None)
    doubled, length, *_ = audio.fit(data, AudioConfig(sample_rate=16_000, num_samples=4_000), None)
    assert length == 4_000
    # Away from the ends and without what lies near 4 kHz, which the filter takes.
    spectrum, twice = np.abs(np.fft.rfft(plain)), np.abs(np.fft.rfft(doubled)) / 2
    np.testing.assert_allclose(twice[:850], spectrum[:850], atol=2)
