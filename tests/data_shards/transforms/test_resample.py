import tracemalloc

import numpy as np
import pytest
from scipy.signal import resample_poly

from data_shards.modalities.transforms import resample as resampling
from data_shards.modalities.transforms.resample import resample


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (22_050, 48_000), (16_000, 15_999)]
)
@pytest.mark.parametrize("length", [1, 7, 3_000])
def test_the_sinc_method_is_scipys_polyphase_filter(from_rate: int, to_rate: int, length: int) -> None:
    samples = np.random.default_rng(0).normal(size=length).astype(np.float32)
    common = np.gcd(from_rate, to_rate)
    expected = resample_poly(samples.astype(np.float64), to_rate // common, from_rate // common, window=("kaiser", 5.0))
    # Ours sums some 50 products in float32.
    np.testing.assert_allclose(resample(samples, from_rate, to_rate, "sinc"), expected, atol=3e-6)


def test_a_tone_keeps_its_frequency_and_one_too_high_is_removed() -> None:
    seconds = np.arange(16_000) / 16_000
    kept, removed = np.sin(2 * np.pi * 1_000 * seconds), np.sin(2 * np.pi * 6_000 * seconds)
    resampled = resample((kept + removed).astype(np.float32), 16_000, 8_000, "sinc")
    expected = np.sin(2 * np.pi * 1_000 * np.arange(8_000) / 8_000)
    # What the filter lets through: -50 dB.
    np.testing.assert_allclose(resampled[100:-100], expected[100:-100], atol=0.01)


def test_the_linear_method_interpolates() -> None:
    doubled = resample(np.array([0, 2, 4], np.float32), 8_000, 16_000, "linear")
    np.testing.assert_allclose(doubled, [0, 1, 2, 3, 4, 4])
    np.testing.assert_allclose(resample(np.arange(9, dtype=np.float32), 9_000, 3_000, "linear"), [0, 3, 6])


def test_an_equal_rate_changes_nothing() -> None:
    samples = np.ones(3, np.float32)
    assert resample(samples, 8_000, 8_000, "sinc") is samples


@pytest.mark.parametrize("rates", [(48_000, 8_000), (44_100, 16_000), (8_000, 16_000)])
def test_a_long_recording_is_resampled_in_blocks(monkeypatch: pytest.MonkeyPatch, rates: tuple[int, int]) -> None:
    samples = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    at_once = resample(samples, *rates, "sinc")
    monkeypatch.setattr(resampling, "_BLOCK_VALUES", 5_000)
    tracemalloc.start()
    in_blocks = resample(samples, *rates, "sinc")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Sums in another order, in float32.
    np.testing.assert_allclose(in_blocks, at_once, atol=1e-6)
    assert peak < 2 << 20


@pytest.mark.parametrize("method", ["sinc", "linear"])
def test_a_rate_that_makes_an_hour_of_a_second_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="20000 samples at 1 a second are 320000000 at 16000; at most 134217728"):
        resample(np.zeros(20_000, np.float32), 1, 16_000, method)


def test_as_many_samples_are_made_as_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "MAX_SAMPLES", 10)
    assert len(resample(np.zeros(5, np.float32), 8_000, 16_000, "sinc")) == 10
    with pytest.raises(ValueError, match="6 samples at 8000 a second are 12 at 16000; at most 10"):
        resample(np.zeros(6, np.float32), 8_000, 16_000, "sinc")
