import io

import numpy as np
import pytest

from data_shards.decoders.points import points


def npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


CLOUD = np.random.default_rng(0).normal(size=(10, 6))


@pytest.mark.parametrize("cloud", [CLOUD, np.asfortranarray(CLOUD), CLOUD.astype(np.float16), CLOUD.astype(">f4")])
def test_a_cloud_gives_its_first_three_columns(cloud: np.ndarray) -> None:
    decoded = points(npy(cloud))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, cloud[:, :3].astype(np.float32))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (npy(np.where(np.arange(10)[:, None] == 3, np.nan, CLOUD)), "NaN or infinite coordinates in 1 of 10 points"),
        (npy(np.zeros((0, 3))), "without points"),
        (npy(np.zeros((4, 2))), r"shape \(4, 2\)"),
        (npy(np.zeros(4)), r"shape \(4,\)"),
        (npy(CLOUD)[:-8], "claims shape"),
        (npy(CLOUD).replace(b"(10, 6)", b"(-9, 6)"), "claims shape"),
        (npy(CLOUD)[:20], "corrupt .npy header"),
        (npy(np.array([[1, 2, "x"]], object), allow_pickle=True), "never unpickled"),
        (npy(np.array([["a", "b", "c"]])), "of real numbers"),
        (b"", "not a point cloud"),
    ],
)
def test_what_is_wrong_with_a_cloud_is_said(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        points(data)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_an_npz_gives_its_only_array_or_the_one_named_points() -> None:
    np.testing.assert_array_equal(points(npz(cloud=CLOUD)), CLOUD[:, :3].astype(np.float32))
    np.testing.assert_array_equal(points(npz(normals=-CLOUD, points=CLOUD)), CLOUD[:, :3].astype(np.float32))
    with pytest.raises(ValueError, match=r"arrays a\.npy, b\.npy; expected one named points"):
        points(npz(a=CLOUD, b=CLOUD))
    with pytest.raises(ValueError, match=r"corrupt \.npz"):
        points(npz(cloud=CLOUD)[:-30])


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = npz(cloud=np.zeros((200_000, 3)))
    assert len(bomb) < 10_000
    monkeypatch.setattr("data_shards.decoders.points.MAX_BYTES", 1_000_000)
    with pytest.raises(ValueError, match=r"claims an array of 4800128 bytes"):
        points(bomb)
