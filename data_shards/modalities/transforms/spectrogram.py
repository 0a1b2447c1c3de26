"""Waveforms to log-mel spectrograms, and hidden parts of these (SpecAugment)."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.transform_config import LogMelConfig, SpecAugmentConfig

FLOOR = 1e-6
"""The power that is added before the logarithm: about that of noise at -80 dB of full scale."""


def log_mel(
    samples: NDArray[np.float32], num_valid: int, sample_rate: int, config: LogMelConfig
) -> tuple[NDArray[np.float32], int]:
    """Return frames (samples // hop, bins) and how many of them hear something of the first `num_valid` samples.

    `samples` is (S,) or (S, channels); of several channels each bin has its values of all of them, next to each other.
    Over those frames the mean is 0 and the variance 1, so loudness does not matter; the frames after them are 0.
    Frame t is the power spectrum of the Hann window that starts at t * hop; the end is padded with silence.
    """
    hop, window = config.hop_samples(sample_rate), config.window_samples(sample_rate)
    num_frames = len(samples) // hop
    num_fft = 1 << (window - 1).bit_length()
    filters, spectra = _mel_filters(config.num_bins, num_fft, sample_rate), []
    for channel in samples.reshape(len(samples), -1).T:
        pieces = np.lib.stride_tricks.sliding_window_view(np.pad(channel, (0, window)), window)
        power = np.abs(np.fft.rfft(pieces[: num_frames * hop : hop] * _hann(window), num_fft)) ** 2
        spectra.append(np.log(power @ filters + FLOOR))
    bands = np.stack(spectra, axis=2).reshape(num_frames, -1)
    frames = np.zeros(bands.shape, np.float32)
    num_heard = min(num_frames, -(-num_valid // hop))
    heard = bands[:num_heard]
    # A silent recording has no deviation to divide by.
    frames[:num_heard] = (heard - heard.mean()) / (heard.std() + 1e-3)
    return frames, num_heard


def spec_augment(
    frames: NDArray[np.float32],
    num_frames: int,
    config: SpecAugmentConfig,
    rng: np.random.Generator,
    num_channels: int = 1,
) -> NDArray[np.float32]:
    """Return the spectrogram with random bands and stretches of time set to 0, its mean (arXiv 1904.08779).

    Bands are hidden in all channels at once.
    """
    hidden = frames.copy()
    # Within what is heard: the padding behind it is 0 already.
    for start, end in _stretches(config.num_time_masks, config.max_time_frames, num_frames, rng):
        hidden[start:end] = 0
    for start, end in _stretches(config.num_bin_masks, config.max_bins, frames.shape[1] // num_channels, rng):
        hidden[:, start * num_channels : end * num_channels] = 0
    return hidden


def _stretches(count: int, longest: int, available: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    for _ in range(count):
        length = int(rng.integers(min(longest, available), endpoint=True))
        start = int(rng.integers(available - length, endpoint=True))
        yield start, start + length


@lru_cache(maxsize=8)
def _hann(window: int) -> NDArray[np.float64]:
    # Periodic, as spectra want it; np.hanning is the symmetric one.
    return np.hanning(window + 1)[:-1]


@lru_cache(maxsize=8)
def _mel_filters(num_bins: int, num_fft: int, sample_rate: int) -> NDArray[np.float64]:
    """Return triangles (num_fft // 2 + 1, num_bins) of height 1, each from the centre before to the centre after it."""
    # The mel scale of HTK, which is torchaudio's by default; librosa's default is Slaney's.
    mel_edges = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), num_bins + 2)
    edges = 700 * (10 ** (mel_edges / 2595) - 1)
    frequencies = np.arange(num_fft // 2 + 1) * sample_rate / num_fft
    rising = (frequencies[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))
