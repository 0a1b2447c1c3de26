import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from data_shards.modalities.decoding.points import points


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
        (npy(np.zeros(4, [("x", "f4"), ("y", "f4"), ("z", "f4")])), "no array of plain numbers"),
        (npy(np.zeros((3, 1024))), r"shape \(3, 1024\) of float64; expected a row a point"),
        (npy(np.zeros((12, 100))), r"shape \(12, 100\)"),
        (b"", "not a point cloud"),
    ],
)
def test_what_is_wrong_with_a_cloud_is_said(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        points(data)


def test_a_mesh_gives_points_of_its_surface() -> None:
    assert points(b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n").shape == (2048, 3)


def with_header(header: str) -> bytes:
    """A .npy file of no numbers."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    "shape",
    ["(" + "-" * 60_000 + "1,)", "(" * 30_000 + ")" * 30_000, "(9**9**9,)", "[" * 60_000, "(" + "9" * 60_000 + ",)"],
)
def test_a_header_is_not_evaluated(shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"corrupt \.npy header|claims shape"):
        points(with_header(header))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, CLOUD, version)
    np.testing.assert_array_equal(points(file.getvalue()), CLOUD[:, :3].astype(np.float32))


def test_a_header_in_another_order_is_read() -> None:
    header = '{"shape": (2,3) , "descr": "<f4","fortran_order":True }\n'
    data = with_header(header) + np.arange(6, dtype="<f4").tobytes()
    np.testing.assert_array_equal(points(data), [[0, 2, 4], [1, 3, 5]])


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
    monkeypatch.setattr("data_shards.modalities.decoding.numbers.MAX_BYTES", 1_000_000)
    with pytest.raises(ValueError, match=r"claims an array of 4800128 bytes"):
        points(bomb)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_is_unpacked_by_deflate_alone(packing: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("points.npy", npy(CLOUD))
    with pytest.raises(ValueError, match="another way than by deflate"):
        points(file.getvalue())
