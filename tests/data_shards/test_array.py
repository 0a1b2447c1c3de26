"""Arrays of any number of axes: what is read of their files."""

import io
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from data_shards.config import DataConfig
from data_shards.loading.batch import Sample
from data_shards.loading.sample import BadMemberError, prepare
from data_shards.modalities.kinds.array import ArrayConfig

EEG = np.arange(20, dtype=np.float32).reshape(5, 4)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    return file.getvalue()


def read(content: bytes, rng: np.random.Generator | None = None, **fields: Any) -> Sample:  # noqa: ANN401 - of any key
    config = DataConfig(inputs={"eeg": ArrayConfig(members="eeg.npy", **{"shape": (5, 4), **fields})})
    return prepare({"eeg.npy": content}, config, rng)


@pytest.mark.parametrize(
    "content",
    [npy(EEG), npy(np.asfortranarray(EEG, np.float64)), npz(any=EEG), save({"any": EEG}), npy(EEG.astype("i2"))],
)
def test_every_kind_of_file_gives_its_numbers(content: bytes) -> None:
    sample = read(content)
    assert sample.arrays["eeg"].dtype == np.float32
    np.testing.assert_array_equal(sample.arrays["eeg"], EEG)
    assert sample.lengths == {"eeg": 5}


def test_a_shorter_array_is_padded_and_a_longer_one_cut_about_its_middle_in_training_anywhere() -> None:
    short = read(npy(EEG[:3]))
    assert short.lengths == {"eeg": 3}
    np.testing.assert_array_equal(short.arrays["eeg"], np.concatenate([EEG[:3], np.zeros((2, 4))]))
    long = np.arange(28).reshape(7, 4)
    np.testing.assert_array_equal(read(npy(long)).arrays["eeg"], long[1:6])
    starts = {int(read(npy(long), np.random.default_rng(seed)).arrays["eeg"][0, 0]) // 4 for seed in range(30)}
    assert starts == {0, 1, 2}


def test_channels_are_standardized_each_by_itself_wherever_their_axis_is() -> None:
    last = read(npy(EEG), standardize=True).arrays["eeg"]
    np.testing.assert_allclose(last.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(last.std(axis=0), 1, atol=1e-6)
    first = read(npy(EEG), standardize=True, axes=("channel", "time")).arrays["eeg"]
    np.testing.assert_allclose(first.std(axis=1), 1, atol=1e-6)
    none = read(npy(EEG), standardize=True, axes=("row", "column")).arrays["eeg"]
    assert (none.mean(), none.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
    assert (read(npy(np.ones((5, 4))), standardize=True).arrays["eeg"] == 0).all()


def test_numbers_that_are_not_finite_are_refused_or_become_zero() -> None:
    holes = EEG.copy()
    holes[1, 2], holes[3, 0] = np.nan, np.inf
    with pytest.raises(BadMemberError, match=r"\.eeg\.npy: array with 2 of 20 values that are NaN or infinite"):
        read(npy(holes))
    found = read(npy(holes), nan="zero").arrays["eeg"]
    assert (found[1, 2], found[3, 0], found[0, 1]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npy(EEG.T), r"array of shape \(4, 5\); expected \(any, 4\)"),
        (npy(EEG[None]), r"array of shape \(1, 5, 4\); expected \(any, 4\)"),
        (npy(EEG.astype(complex)), "expected real numbers"),
        (npy(EEG[:0]), "expected real numbers"),
        (npy(EEG)[:-1], "claims shape"),
        (npz(a=EEG, b=EEG), "has the arrays a.npy, b.npy; expected one"),
        (save({"a": EEG, "b": EEG}), "has the tensors a, b; expected one"),
        (save({"a": EEG})[:-1], "corrupt safetensors file"),
        (b"no array", "not an array; expected npy, npz or safetensors"),
        (b"", "not an array"),
    ],
)
def test_what_is_no_such_array_is_a_bad_sample(content: bytes, sentence: str) -> None:
    with pytest.raises(BadMemberError, match=sentence):
        read(content)


def test_what_is_wrong_with_a_section_is_told_by_its_key() -> None:
    assert [key for key, _ in ArrayConfig().problems()] == ["shape"]
    assert [key for key, _ in ArrayConfig(shape=(4, 0)).problems()] == ["shape"]
    assert [key for key, _ in ArrayConfig(shape=(4, 2), axes=("a",)).problems()] == ["axes"]
    assert [key for key, _ in ArrayConfig(shape=(4, 2), axes=("a", "a")).problems()] == ["axes"]
    assert list(ArrayConfig(shape=(4,), axes=("time",)).problems()) == []
