"""Which samples of a recording are read: in evaluation always the same ones, in training others near to them."""

import struct

import numpy as np
import pytest

from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.transforms.audio import fit

RATE = 8_000


def wav(num_samples: int, rate: int = RATE) -> bytes:
    """A recording of floats whose samples are 1, 2, 3, ... hundredths."""
    payload = (np.arange(1, num_samples + 1) / 100).astype("<f4").tobytes()
    head = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", len(payload)) + payload


def hundredths(
    num_there: int, config: AudioConfig, rng: np.random.Generator | None = None
) -> tuple[list[int], int, bool]:
    window, num_valid, is_cut = fit(wav(num_there), config, rng)
    assert window.dtype == np.float32
    return np.rint(window * 100).astype(int).tolist(), num_valid, is_cut


@pytest.mark.parametrize(
    ("num_there", "place", "expected"),
    [
        (9, None, ([3, 4, 5, 6], 4, True)),
        (9, 0.0, ([1, 2, 3, 4], 4, True)),
        (9, 0.3, ([3, 4, 5, 6], 4, True)),
        (9, 0.7, ([5, 6, 7, 8], 4, True)),
        (9, 1.0, ([6, 7, 8, 9], 4, True)),
        (5, None, ([1, 2, 3, 4], 4, True)),
        (4, None, ([1, 2, 3, 4], 4, False)),
        (3, None, ([1, 2, 3, 0], 3, False)),
        (1, 1.0, ([1, 0, 0, 0], 1, False)),
    ],
)
def test_an_evaluation_reads_where_it_is_told_or_in_the_middle(
    num_there: int, place: float | None, expected: tuple[list[int], int, bool]
) -> None:
    config = AudioConfig(sample_rate=RATE, num_samples=4, place=place, jitter_samples=3)
    assert hundredths(num_there, config) == expected


@pytest.mark.parametrize(
    ("num_there", "place", "jitter", "firsts"),
    [
        (9, None, 0, {3}),
        (9, None, 1, {2, 3, 4}),
        (9, None, 50, {1, 2, 3, 4, 5, 6}),
        (9, 0.0, 2, {1, 2, 3}),
        (9, 1.0, 2, {4, 5, 6}),
        (4, None, 2, {1}),
    ],
)
def test_training_begins_a_few_samples_earlier_or_later(
    num_there: int, place: float | None, jitter: int, firsts: set[int]
) -> None:
    config = AudioConfig(sample_rate=RATE, num_samples=4, place=place, jitter_samples=jitter)
    found = [hundredths(num_there, config, np.random.default_rng(seed)) for seed in range(60)]
    assert {samples[0] for samples, *_ in found} == firsts
    for samples, num_valid, is_cut in found:
        assert samples == list(range(samples[0], samples[0] + 4))
        assert (num_valid, is_cut) == (4, num_there > 4)


@pytest.mark.parametrize(("jitter", "silences"), [(0, {0}), (1, {0, 1}), (50, {0, 1, 2})])
def test_a_short_recording_begins_in_training_after_a_little_silence_which_counts_as_heard(
    jitter: int, silences: set[int]
) -> None:
    config = AudioConfig(sample_rate=RATE, num_samples=4, jitter_samples=jitter)
    found = [hundredths(2, config, np.random.default_rng(seed)) for seed in range(40)]
    assert {num_valid - 2 for _, num_valid, _ in found} == silences
    for samples, num_valid, is_cut in found:
        silence = num_valid - 2
        assert samples == [0] * silence + [1, 2] + [0] * (2 - silence)
        assert not is_cut
