"""Arrays of numbers: which files give one, up to which size, and what becomes of what is not finite."""

import io
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from data_shards.modalities.decoding import numbers as decoder
from data_shards.modalities.decoding import points as clouds
from data_shards.modalities.decoding.numbers import finite, numbers
from data_shards.modalities.decoding.points import Cloud, columns, everything


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f8", "i1", "<i8", "u1", ">u2", "bool"])
def test_real_numbers_of_any_kind_are_read(dtype: str) -> None:
    array = (VALUES > 2).astype(dtype) if dtype == "bool" else VALUES.astype(dtype)
    for content in (npy(array), npz(any=array), npy(np.asfortranarray(array))):
        found = numbers(content)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    np.testing.assert_array_equal(numbers(npy(np.array(7.0))), 7.0)


def test_a_safetensors_file_gives_its_only_tensor() -> None:
    np.testing.assert_array_equal(numbers(save({"x": VALUES})), VALUES)
    with pytest.raises(ValueError, match="safetensors file has the tensors a, b; expected one"):
        numbers(save({"b": VALUES, "a": VALUES}))
    with pytest.raises(ValueError, match="safetensors file has the tensors ; expected one"):
        numbers(save({}))
    with pytest.raises(ValueError, match="corrupt safetensors file"):
        numbers(save({"x": VALUES})[:-4])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npy(np.zeros((2, 0))), r"array of shape \(2, 0\) of float64; expected real numbers"),
        (npy(np.zeros(2, complex)), r"array of shape \(2,\) of complex128; expected real numbers"),
        (npy(np.array(["a"])), "of <U1; expected real numbers"),
        (npz(a=VALUES, b=VALUES), r"\.npz file has the arrays a\.npy, b\.npy; expected one$"),
        (npy(VALUES)[:-1], r"claims shape \(2, 3\) of float32, 23 bytes are there"),
        (npy(VALUES) + b"\0", r"claims shape \(2, 3\) of float32, 25 bytes are there"),
        (npy(VALUES)[:6] + b"\x00" + npy(VALUES)[7:], "corrupt .npy header"),
        (npy(VALUES)[:6] + b"\x04" + npy(VALUES)[7:], "corrupt .npy header"),
        (npy(VALUES)[:60], "corrupt .npy header"),
        (b"PK\x03\x04", "corrupt .npz file"),
        (b"", "not an array; expected npy, npz or safetensors"),
        (b"12345678[", "not an array"),
    ],
)
def test_what_is_no_array_is_told(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        numbers(content)


def test_an_array_has_a_greatest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MAX_BYTES", 24)
    np.testing.assert_array_equal(numbers(npy(VALUES)), VALUES)
    monkeypatch.setattr(decoder, "MAX_BYTES", 23)
    with pytest.raises(ValueError, match="array of 24 bytes; at most 23 are decoded"):
        numbers(npy(VALUES))


def test_an_archive_claims_no_more_than_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(npy(VALUES))
    monkeypatch.setattr(decoder, "MAX_BYTES", size)
    np.testing.assert_array_equal(numbers(npz(a=VALUES)), VALUES)
    monkeypatch.setattr(decoder, "MAX_BYTES", size - 1)
    with pytest.raises(ValueError, match=f"claims an array of {size} bytes; at most {size - 1} are read"):
        numbers(npz(a=VALUES))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(VALUES), compress_type=zipfile.ZIP_STORED)
    monkeypatch.setattr(decoder, "MAX_BYTES", size)
    np.testing.assert_array_equal(numbers(file.getvalue()), VALUES)


HOLES = np.array([1, np.nan, np.inf, -np.inf], np.float32)


@pytest.mark.parametrize(("policy", "expected"), [("zero", [1, 0, 0, 0]), ("keep", [1, np.nan, np.nan, np.nan])])
def test_what_is_not_finite_becomes_zero_or_unknown(policy: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(finite(HOLES, policy), expected)
    assert finite(HOLES, policy).dtype == np.float32
    whole = HOLES[:1]
    assert finite(whole, policy) is whole


def test_what_is_not_finite_is_refused_with_its_number() -> None:
    with pytest.raises(ValueError, match=r"^array with 3 of 4 values that are NaN or infinite; nan=zero takes 0$"):
        finite(HOLES, "refuse")
    assert finite(HOLES[:1], "refuse").tolist() == [1]


@pytest.mark.parametrize(
    ("shape", "asked", "is_taken"),
    [
        ((3, 16), 3, True),
        ((3, 17), 3, False),
        ((17, 17), 3, False),
        ((18, 17), 3, True),
        ((3, 20), 20, True),
        ((3, 21), 20, False),
        ((4, 2), 3, False),
        ((4, 2), 2, True),
        ((4, 1), 1, True),
        ((4,), 1, False),
        ((4, 3, 1), 3, False),
        ((0, 3), 3, False),
    ],
)
def test_a_list_of_points_has_few_columns_or_more_rows(shape: tuple[int, ...], asked: int, is_taken: bool) -> None:
    cloud = Cloud(np.ones(shape, np.float32))
    dimensions, features = (asked, 0) if asked < 4 else (3, asked - 3)
    if is_taken:
        assert columns(cloud, dimensions, (), features).shape == (shape[0], asked)
    else:
        with pytest.raises(ValueError, match="point cloud"):
            columns(cloud, dimensions, (), features)


@pytest.mark.parametrize(
    ("dtype", "is_taken"), [("f2", True), ("i4", True), ("u1", True), ("bool", False), ("c8", False)]
)
def test_places_are_real_numbers(dtype: str, is_taken: bool) -> None:
    cloud = Cloud(np.ones((2, 3), dtype))
    if is_taken:
        assert columns(cloud, 3).tolist() == [[1, 1, 1]] * 2
    else:
        with pytest.raises(ValueError, match="of real numbers"):
            columns(cloud, 3)


def test_a_cloud_has_a_greatest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud(np.ones((2, 3), np.float32))
    monkeypatch.setattr(clouds, "MAX_BYTES", 24)
    assert len(columns(cloud, 3)) == 2
    monkeypatch.setattr(clouds, "MAX_BYTES", 23)
    with pytest.raises(ValueError, match="point cloud of 24 bytes; at most 23 are decoded"):
        columns(cloud, 3)


def test_features_that_nobody_asks_for_may_be_missing_and_places_may_not() -> None:
    values = np.array([[1, 2, 3, np.nan], [4, 5, 6, 7]])
    np.testing.assert_array_equal(everything(Cloud(values)), values.astype(np.float32))
    np.testing.assert_array_equal(columns(Cloud(values), 3), values[:, :3])
    with pytest.raises(ValueError, match="NaN or infinite features in 1 of 2 points"):
        columns(Cloud(values), 3, (), 1)
    with pytest.raises(ValueError, match="NaN or infinite coordinates in 1 of 2 points"):
        everything(Cloud(values[:, ::-1]))
    # A number too large for float32.
    np.testing.assert_array_equal(everything(Cloud(np.array([[1, 2, 3, 1e300]])))[0, 3], np.inf)
    with pytest.raises(ValueError, match="NaN or infinite coordinates in 1 of 1 points"):
        everything(Cloud(np.array([[1e300, 2, 3]])))


def test_names_say_which_columns_are_taken() -> None:
    cloud = Cloud(np.arange(12.0).reshape(2, 6), ("red", "nx", "red2"))
    assert columns(cloud, 3, ("red2", "red")).tolist() == [[0, 1, 2, 5, 3], [6, 7, 8, 11, 9]]
    assert columns(cloud, 2, (), 2).tolist() == [[0, 1, 3, 4], [6, 7, 9, 10]]
    assert columns(Cloud(cloud.values), 3, ("a", "b", "c")).tolist() == cloud.values.tolist()
    assert columns(Cloud(cloud.values), 4, (), 1).tolist() == cloud.values[:, :5].tolist()
