"""Recordings to float32 (num_samples, channels) at the config's rate, or to frames of a log-mel spectrogram."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.audio import recording, with_channels
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.transforms.resample import resample
from data_shards.modalities.transforms.spectrogram import log_mel, spec_augment


def fit(
    data: bytes | memoryview, config: AudioConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.float32], int, bool]:
    """Return a long recording where the config says, or a short one padded with zeros; in training moved at random.

    With its length, and whether the recording is longer.
    """
    window, num_valid, is_cut = _window(data, config, rng)
    if config.log_mel is None:
        return window.reshape(config.shape), num_valid, is_cut
    frames, num_frames = log_mel(window, num_valid, config.sample_rate, config.log_mel)
    if rng is not None and config.spec_augment:
        frames = spec_augment(frames, num_frames, config.spec_augment, rng, config.num_channels)
    return frames, num_frames, is_cut


def _window(
    data: bytes | memoryview, config: AudioConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.float32], int, bool]:
    found, sample_rate = recording(data)
    channels = with_channels(found, config.num_channels).T
    resampled = [resample(channel, sample_rate, config.sample_rate, config.resample) for channel in channels]
    # Most sound has one channel, which needs no copy.
    samples = np.stack(resampled, axis=1) if len(resampled) > 1 else resampled[0][:, None]
    spare = len(samples) - config.num_samples
    if spare >= 0:
        start = spare // 2 if config.place is None else round(config.place * spare)
        start = _jittered(start, spare, config.jitter_samples, rng)
        return samples[start : start + config.num_samples], config.num_samples, spare > 0
    window = np.zeros((config.num_samples, config.num_channels), np.float32)
    # A short recording starts at once, or in training after a little silence, which counts as heard.
    start = _jittered(0, -spare, config.jitter_samples, rng)
    window[start : start + len(samples)] = samples
    return window, start + len(samples), False


def _jittered(start: int, last: int, jitter: int, rng: np.random.Generator | None) -> int:
    """Return a start moved by up to `jitter` within 0 and `last`, each possible one with equal probability."""
    if rng is None or not jitter:
        return start
    return int(rng.integers(max(0, start - jitter), min(last, start + jitter), endpoint=True))
