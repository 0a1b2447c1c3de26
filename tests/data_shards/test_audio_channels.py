"""Recordings of any number of channels: what is read of their files, and what becomes of it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from configs.network import network_config
from data_shards.config import DataConfig
from data_shards.loading.batch import Sample
from data_shards.loading.sample import BadMemberError, prepare
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.transform_config import LogMelConfig, SpecAugmentConfig
from data_shards.modalities.transforms.spectrogram import FLOOR
from model.modalities.audio import AudioInput

RATE = 8_000
I15 = Path(__file__).parents[2] / "configs" / "paper" / "i15.yaml"


def sound(channels: int, num_samples: int = 400) -> np.ndarray:
    return np.random.default_rng(channels).uniform(-0.5, 0.5, (num_samples, channels)).astype(np.float32)


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def read(content: bytes, rng: np.random.Generator | None = None, **fields: Any) -> Sample:  # noqa: ANN401 - any key
    section = AudioConfig(**{"num_samples": 400, **fields})
    assert not list(section.problems())
    sample = prepare({"wav": content}, DataConfig(inputs={"sound": section}), rng)
    array = sample.arrays["sound"]
    assert (array.shape, array.dtype) == (section.shape, np.float32)
    # The network reads just that, its sizes being those of the data.
    assert AudioInput(patch=1).with_sizes(section.sizes).shape == section.shape
    return sample


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_channel_is_read(channels: int) -> None:
    samples = sound(channels)
    found = read(wav(samples), num_channels=channels).arrays["sound"]
    np.testing.assert_array_equal(found.reshape(400, -1), samples)
    short = read(wav(samples[:100]), num_channels=channels)
    assert short.lengths == {"sound": 100}
    np.testing.assert_array_equal(short.arrays["sound"].reshape(400, -1)[:100], samples[:100])
    assert not short.arrays["sound"][100:].any()


def test_one_channel_is_the_mean_and_of_one_come_equal_ones() -> None:
    stereo, mono = sound(2), sound(1)
    np.testing.assert_array_equal(read(wav(stereo)).arrays["sound"], stereo.mean(axis=1))
    np.testing.assert_array_equal(read(wav(mono), num_channels=3).arrays["sound"], mono.repeat(3, axis=1))


@pytest.mark.parametrize(("found", "asked"), [(2, 3), (6, 2)])
def test_any_other_number_of_channels_is_a_bad_sample(found: int, asked: int) -> None:
    with pytest.raises(BadMemberError, match=f"sound of {found} channels, num_channels is {asked}; set num_channels="):
        read(wav(sound(found)), num_channels=asked)


def test_channels_are_resampled_and_moved_together() -> None:
    mono = sound(1, 900)
    fields = {"sample_rate": 6_000, "num_samples": 300, "jitter_samples": 50}
    one = read(wav(mono), np.random.default_rng(3), **fields).arrays["sound"]
    three = read(wav(mono.repeat(3, axis=1)), np.random.default_rng(3), num_channels=3, **fields).arrays["sound"]
    for channel in range(3):
        np.testing.assert_array_equal(three[:, channel], one)


def test_a_spectrogram_has_of_each_bin_the_values_of_all_channels_with_one_mean() -> None:
    mel = LogMelConfig(num_bins=10, hop_seconds=0.005)
    # The second channel is a tenth as loud: by one mean and deviation of both it stays quieter.
    mono = sound(1)
    stereo = np.hstack([mono, mono / 10])
    found = read(wav(stereo), num_channels=2, log_mel=mel).arrays["sound"]
    assert found.shape == (10, 20)
    assert abs(found.mean()) < 1e-5
    loud, quiet = found[:, ::2], found[:, 1::2]
    gap = loud - quiet
    assert gap.min() > 0
    # Where the floor does not count, a tenth of the amplitude is a hundredth of the power.
    assert gap.std() < 0.05 * gap.mean()
    alone = read(wav(mono), log_mel=mel).arrays["sound"]
    np.testing.assert_allclose(np.corrcoef(loud.ravel(), alone.ravel())[0, 1], 1, atol=1e-6)
    assert FLOOR < 1e-3


def test_bands_are_hidden_in_all_channels_at_once() -> None:
    fields = {"log_mel": LogMelConfig(num_bins=10, hop_seconds=0.005), "num_channels": 2}
    hide = SpecAugmentConfig(num_time_masks=0, num_bin_masks=1, max_bins=4)
    hidden = []
    for seed in range(40):
        found = read(wav(sound(2)), np.random.default_rng(seed), spec_augment=hide, **fields).arrays["sound"]
        bands = (found == 0).all(axis=0).reshape(10, 2)
        assert (bands[:, 0] == bands[:, 1]).all()
        hidden.append(int(bands[:, 0].sum()))
    # 0 to 4 of the bins, each as often as the others: all are within the spectrogram.
    assert set(hidden) == {0, 1, 2, 3, 4}
    assert hidden.count(0) < 20


def test_the_spectrogram_of_the_papers_is_what_their_network_reads() -> None:
    section = AudioConfig(sample_rate=48_000, num_samples=61_440, log_mel=LogMelConfig(num_bins=48, hop_seconds=0.0128))
    assert not list(section.problems())
    network = network_config(I15).inputs["spectrogram"]
    assert network.shape == section.shape == (100, 48)
    assert network.num_tokens == 4_800
    assert AudioInput(patch=1, patch_bins=1).with_sizes(section.sizes).grid == (100, 48)


def test_a_network_without_channels_is_refused() -> None:
    assert [key for key, _ in AudioConfig(num_channels=0).problems()] == ["num_channels"]
