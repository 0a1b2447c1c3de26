"""Audio to another sample rate, by a named method."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.audio import MAX_SAMPLES

ZERO_CROSSINGS = 10
"""Zero crossings of the sinc on each side, at the lower of the two rates."""
# Both are scipy.signal.resample_poly's own, to which a test compares.
KAISER_BETA = 5.0
_BLOCK_VALUES = 1 << 24
"""Values of the input that are laid out for the filter at a time, 64 MiB: those of an hour would be gigabytes."""


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int, method: str) -> NDArray[np.float32]:
    """Return ceil(S * to_rate / from_rate) samples; "sinc" equals scipy.signal.resample_poly, "linear" interpolates."""
    if from_rate == to_rate:
        return samples
    common = math.gcd(from_rate, to_rate)
    up, down = to_rate // common, from_rate // common
    num_out = -(-len(samples) * up // down)
    if num_out > MAX_SAMPLES:
        raise ValueError(
            f"{len(samples)} samples at {from_rate} a second are {num_out} at {to_rate}; at most {MAX_SAMPLES} are "
            "made: check the rate that the recording claims"
        )
    # Without a filter: what is above half of the new rate comes back as other tones.
    if method == "linear":
        between = np.interp(np.arange(num_out) * (down / up), np.arange(len(samples)), samples)
        return np.asarray(between, np.float32)
    return _sinc(samples, up, down, num_out)


def _sinc(samples: NDArray[np.float32], up: int, down: int, num_out: int) -> NDArray[np.float32]:
    """Filter as if the signal had been filled with up - 1 zeros between samples, computing only what is kept.

    Output n lies at place n * down on the fine grid. Those with the same place modulo `up` meet the same taps, so they
    are one product of windows of the input with a vector.
    """
    phases = _phases(up, down)
    num_taps = phases.shape[1]
    half = ZERO_CROSSINGS * max(up, down)
    padded = np.pad(samples, (num_taps, num_taps + half // up + 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, num_taps)
    out = np.empty(num_out, np.float32)
    block = max(1, _BLOCK_VALUES // num_taps)
    # At most `up` phases occur, and they recur every `up` outputs.
    for first in range(min(up, num_out)):
        place = np.arange(first, num_out, up) * down + half
        newest, taps, outputs = place // up, phases[place[0] % up], out[first::up]
        for begin in range(0, len(newest), block):
            outputs[begin : begin + block] = windows[newest[begin : begin + block] + 1] @ taps
    return out


@lru_cache(maxsize=8)
def _phases(up: int, down: int) -> NDArray[np.float32]:
    """Return the low-pass filter's taps that each phase meets, (up, taps), the oldest input first."""
    half = ZERO_CROSSINGS * max(up, down)
    places = np.arange(-half, half + 1)
    taps = np.sinc(places / max(up, down)) * np.kaiser(2 * half + 1, KAISER_BETA)
    # Gain 1 for a constant, times `up` for the zeros between samples.
    taps *= up / taps.sum()
    padded = np.pad(taps, (0, -len(taps) % up))
    return np.ascontiguousarray(padded.reshape(-1, up).T[:, ::-1], np.float32)
