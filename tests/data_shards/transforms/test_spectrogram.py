import math
from dataclasses import replace

import numpy as np
import pytest

from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.transform_config import LogMelConfig
from data_shards.modalities.transforms.spectrogram import FLOOR, log_mel

RATE = 8_000
CONFIG = LogMelConfig(num_bins=40, window_seconds=0.025, hop_seconds=0.010)


def plain(samples: np.ndarray, window: int = 200, num_fft: int = 256) -> np.ndarray:
    """The definition in loops: DFT by its sum, triangles by their corners."""
    hop = 80
    mel = [i * 2595 * math.log10(1 + RATE / 2 / 700) / (40 + 1) for i in range(40 + 2)]
    corners = [700 * (10 ** (m / 2595) - 1) for m in mel]
    rows = []
    for start in range(0, len(samples) - hop + 1, hop):
        piece = np.zeros(num_fft)
        for n, value in enumerate(samples[start : start + window]):
            piece[n] = value * 0.5 * (1 - math.cos(2 * math.pi * n / window))
        powers = [
            abs(np.sum(piece * np.exp(-2j * np.pi * k * np.arange(num_fft) / num_fft))) ** 2
            for k in range(num_fft // 2 + 1)
        ]
        triangles = [
            np.interp(np.arange(num_fft // 2 + 1) * RATE / num_fft, corners[b : b + 3], [0, 1, 0]) for b in range(40)
        ]
        rows.append([math.log(np.dot(triangle, powers) + FLOOR) for triangle in triangles])
    bands = np.array(rows)
    return (bands - bands.mean()) / (bands.std() + 1e-3)


@pytest.mark.parametrize(("window", "num_fft"), [(200, 256), (128, 128), (129, 256)])
def test_the_spectrogram_is_its_definition(window: int, num_fft: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 800).astype(np.float32)
    frames, num_frames = log_mel(samples, 800, RATE, replace(CONFIG, window_seconds=window / RATE))
    assert num_frames == 10
    # Two orders of summation in float64, stored as float32.
    np.testing.assert_allclose(frames, plain(samples, window, num_fft), atol=1e-5)


@pytest.mark.parametrize("frequency", [300, 700, 1500, 3000])
def test_a_tone_is_loudest_in_its_band(frequency: float) -> None:
    samples = np.sin(2 * np.pi * frequency * np.arange(4000) / RATE).astype(np.float32)
    frames, _ = log_mel(samples, 4000, RATE, CONFIG)
    centres = np.linspace(0, 2595 * math.log10(1 + RATE / 2 / 700), 42)[1:-1]
    nearest = int(np.argmin(np.abs(centres - 2595 * math.log10(1 + frequency / 700))))
    assert abs(int(frames[20].argmax()) - nearest) <= 1


def test_loudness_does_not_matter_and_silence_is_zero() -> None:
    samples = np.random.default_rng(0).normal(0, 0.3, 4000).astype(np.float32)
    loud, _ = log_mel(samples, 4000, RATE, CONFIG)
    quiet, _ = log_mel(samples / 4, 4000, RATE, CONFIG)
    # Not exact: the floor counts for more in the quiet one.
    np.testing.assert_allclose(loud, quiet, atol=0.05)
    assert loud.mean() == pytest.approx(0, abs=1e-4)
    assert loud.var() == pytest.approx(1, abs=1e-2)
    silent, _ = log_mel(np.zeros(4000, np.float32), 4000, RATE, CONFIG)
    np.testing.assert_allclose(silent, 0, atol=1e-6)


def test_frames_of_padding_are_zero_and_do_not_count() -> None:
    samples = np.zeros(6000, np.float32)
    samples[:1001] = np.random.default_rng(0).normal(0, 0.1, 1001)
    frames, num_frames = log_mel(samples, 1001, RATE, CONFIG)
    assert frames.shape == AudioConfig(sample_rate=RATE, num_samples=6000, log_mel=CONFIG).shape == (75, 40)
    assert num_frames == 13
    assert frames[:13].any(axis=1).all()
    assert not frames[13:].any()


def test_what_is_wrong_with_the_config_is_said() -> None:
    assert not list(AudioConfig(sample_rate=RATE, num_samples=6000, log_mel=CONFIG).problems())
    keys = {
        key for key, _ in AudioConfig(sample_rate=RATE, num_samples=100, log_mel=LogMelConfig(0, 0.025, -1)).problems()
    }
    assert keys == {"num_samples", "log_mel.num_bins", "log_mel.hop_seconds"}
