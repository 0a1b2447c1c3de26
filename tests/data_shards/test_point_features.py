"""Points with colours, normals and other features, in any number of dimensions."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.config import DataConfig
from data_shards.loading.batch import Sample
from data_shards.loading.sample import BadMemberError, prepare
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.modality import MAIN, Member
from data_shards.sources.point_clouds import Sampled

RNG = np.random.default_rng(0)
PLACES = RNG.normal(size=(6, 3)).astype(np.float32)
COLOURS = RNG.integers(0, 256, (6, 3), np.uint8)
NORMALS = (PLACES / np.linalg.norm(PLACES, axis=1, keepdims=True)).astype(np.float32)
RGB, NXYZ = ("red", "green", "blue"), ("nx", "ny", "nz")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def ply(*, binary: bool) -> bytes:
    """Return a cloud whose properties stand in an odd order: red, x, nx, y, green, ..."""
    names = ["red", "x", "nx", "y", "ny", "green", "z", "blue", "nz", "intensity"]
    columns = dict(
        zip((*"xyz", *NXYZ, *RGB, "intensity"), np.hstack([PLACES, NORMALS, COLOURS, PLACES[:, :1]]).T, strict=True)
    )
    kinds = ["uchar" if name in RGB else "float" for name in names]
    head = f"ply\nformat {'binary_little_endian' if binary else 'ascii'} 1.0\nelement vertex 6\n"
    head += "".join(f"property {kind} {name}\n" for kind, name in zip(kinds, names, strict=True)) + "end_header\n"
    rows = zip(*(columns[name] for name in names), strict=True)
    if binary:
        form = "<" + "".join("B" if kind == "uchar" else "f" for kind in kinds)
        body = b"".join(
            struct.pack(form, *(int(v) if k == "uchar" else v for v, k in zip(row, kinds, strict=True))) for row in rows
        )
    else:
        body = "".join(
            " ".join(str(int(v)) if k == "uchar" else repr(float(v)) for v, k in zip(row, kinds, strict=True)) + "\n"
            for row in rows
        ).encode()
    return head.encode() + body


def off(kind: str, *columns: np.ndarray) -> bytes:
    lines = [" ".join(map(str, row)) for row in np.hstack(columns).tolist()]
    return "\n".join([f"{kind}OFF", "6 0 0", *lines, ""]).encode()


def read(content: bytes, rng: np.random.Generator | None = None, **fields: Any) -> Sample:  # noqa: ANN401 - any key
    section = PointsConfig(**{"members": "x", "num_points": 6, **fields})
    assert not list(section.problems())
    sample = prepare({"x": content}, DataConfig(inputs={"cloud": section}), rng)
    assert sample.arrays["cloud"].shape == section.shape
    return sample


def cloud(content: bytes, rng: np.random.Generator | None = None, **fields: Any) -> np.ndarray:  # noqa: ANN401
    return read(content, rng, **fields).arrays["cloud"]


@pytest.mark.parametrize("binary", [False, True])
def test_features_of_ply_are_taken_by_their_names_wherever_they_stand(binary: bool) -> None:
    found = cloud(ply(binary=binary), features=(*RGB, *NXYZ, "intensity"))
    np.testing.assert_allclose(found, np.hstack([PLACES, COLOURS / 255, NORMALS, PLACES[:, :1]]), rtol=1e-6)
    np.testing.assert_array_equal(cloud(ply(binary=binary)), PLACES)
    counted = cloud(ply(binary=binary), num_features=2)
    np.testing.assert_allclose(counted, np.hstack([PLACES, COLOURS[:, :1] / 255, NORMALS[:, :1]]), rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 255])
def test_features_of_off_are_normals_then_colours(scale: int) -> None:
    colours = COLOURS.astype(np.float64) / (255 if scale == 1 else 1)
    expected = np.hstack([PLACES, COLOURS / 255])
    np.testing.assert_allclose(cloud(off("C", PLACES, colours), features=RGB), expected, rtol=1e-6)
    both = off("CN", PLACES, NORMALS, colours)
    np.testing.assert_allclose(cloud(both, features=RGB), expected, rtol=1e-6)
    np.testing.assert_allclose(cloud(both, features=NXYZ), np.hstack([PLACES, NORMALS]), rtol=1e-6)
    with_alpha = off("C", PLACES, np.hstack([colours, colours[:, :1]]))
    np.testing.assert_allclose(cloud(with_alpha, features=("alpha",))[:, 3], COLOURS[:, 0] / 255, rtol=1e-6)
    np.testing.assert_array_equal(cloud(off("", PLACES, colours)), PLACES)


def test_columns_of_an_array_are_counted_or_get_names() -> None:
    array = np.hstack([PLACES, COLOURS]).astype(np.float32)
    np.testing.assert_array_equal(cloud(npy(array), num_features=3), array)
    np.testing.assert_array_equal(cloud(npy(array), num_features=1), array[:, :4])
    named = cloud(npy(array), features=RGB, feature_divisors=(255, 255, 255))
    np.testing.assert_allclose(named, np.hstack([PLACES, COLOURS / 255]), rtol=1e-6)
    np.testing.assert_array_equal(cloud(npy(array)), PLACES)


@pytest.mark.parametrize("dimensions", [1, 2, 4, 5])
def test_points_have_any_number_of_dimensions(dimensions: int) -> None:
    array = RNG.normal(size=(6, dimensions + 2)).astype(np.float32)
    np.testing.assert_array_equal(cloud(npy(array), num_dimensions=dimensions, num_features=2), array)
    np.testing.assert_array_equal(cloud(npy(array), num_dimensions=dimensions), array[:, :dimensions])


@pytest.mark.parametrize(
    ("content", "fields", "sentence"),
    [
        (ply(binary=False), {"features": ("red", "grey")}, "red, nx, ny, green, blue, nz, .*; expected red, grey"),
        (ply(binary=False), {"num_features": 8}, "nz, intensity; expected 8 of them"),
        (ply(binary=False), {"num_dimensions": 4}, "point cloud with x, y and z alone; expected 4 coordinates"),
        (off("", PLACES), {"features": RGB}, "point cloud with the features none; expected red, green, blue"),
        (npy(PLACES), {"features": RGB}, r"of 3 columns; expected 3 coordinates and 3 features \(red, green, blue\)"),
        (npy(np.ones((6, 7))), {"features": RGB}, "of 7 columns; expected 3 coordinates and 3 features"),
        (npy(np.ones((6, 4))), {"num_dimensions": 5}, "of 4 columns; expected 5 coordinates and 0 features"),
        (npy(np.full((6, 4), np.nan)), {"num_features": 1}, "NaN or infinite coordinates in 6 of 6"),
        (npy(np.hstack([PLACES, np.full((6, 1), np.inf)])), {"num_features": 1}, "NaN or infinite features in 6 of 6"),
        (off("C", PLACES), {"features": RGB}, "point cloud with the features none; expected red"),
    ],
)  # fmt: skip
def test_what_a_cloud_lacks_is_told(content: bytes, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadMemberError, match=sentence):
        read(content, **fields)


@pytest.mark.parametrize("rotate", ["x", "y", "z", "any"])
def test_normals_turn_with_their_points_and_colours_stay(rotate: str) -> None:
    alone = cloud(ply(binary=True), np.random.default_rng(0), features=NXYZ, rotate=rotate)
    # Normals without any other feature.
    np.testing.assert_allclose(
        alone[:, 3:], alone[:, :3] / np.linalg.norm(alone[:, :3], axis=1, keepdims=True), atol=1e-5
    )
    fields = {"features": ("red", *NXYZ), "rotate": rotate}
    plain = cloud(ply(binary=True), features=("red", *NXYZ))
    for seed in range(4):
        turned = cloud(ply(binary=True), np.random.default_rng(seed), **fields)
        # Normals are places divided by their lengths, and stay so.
        lengths = np.linalg.norm(turned[:, :3], axis=1, keepdims=True)
        np.testing.assert_allclose(turned[:, 4:], turned[:, :3] / lengths, atol=1e-5)
        np.testing.assert_allclose(turned[:, 3], plain[:, 3])
        distances = [np.linalg.norm(each[:, None, :3] - each[None, :, :3], axis=-1) for each in (plain, turned)]
        np.testing.assert_allclose(*distances, atol=1e-5)
        rotation, *_ = np.linalg.lstsq(plain[:, :3], turned[:, :3], rcond=None)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-4)
        if rotate != "any":
            np.testing.assert_allclose(turned[:, "xyz".index(rotate)], plain[:, "xyz".index(rotate)], atol=1e-6)
        assert np.abs(turned - plain).max() > 0.01


@pytest.mark.parametrize("dimensions", [2, 4])
def test_clouds_of_other_dimensions_turn_too(dimensions: int) -> None:
    array = RNG.normal(size=(6, dimensions)).astype(np.float32)
    turned = cloud(npy(array), np.random.default_rng(1), num_dimensions=dimensions, rotate="any")
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(array, axis=1), rtol=1e-5)
    assert np.abs(turned - array).max() > 0.01


def test_scaling_and_jitter_change_coordinates_alone_and_a_permutation_moves_whole_points() -> None:
    array = np.hstack([PLACES, COLOURS]).astype(np.float32)
    scaled = cloud(npy(array), np.random.default_rng(0), num_features=3, scale=0.5)
    factors = scaled[:, :3] / PLACES
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-5)
    moved = cloud(npy(array), np.random.default_rng(0), num_features=3, jitter=0.1)
    assert 0 < np.abs(moved[:, :3] - PLACES).max() < 1
    for each in (scaled, moved):
        np.testing.assert_array_equal(each[:, 3:], COLOURS)
    shuffled = cloud(npy(array), np.random.default_rng(0), num_features=3, permute=True)
    assert not np.array_equal(shuffled, array)
    np.testing.assert_array_equal(shuffled[np.argsort(shuffled[:, 0])], array[np.argsort(array[:, 0])])
    cubed = cloud(npy(array), num_features=3, normalize="unit_cube")
    np.testing.assert_array_equal(cubed[:, 3:], COLOURS)
    assert np.abs(cubed[:, :3]).max() == 1


def test_a_cloud_is_scaled_and_turned_by_all_that_is_allowed() -> None:
    one = npy(np.array([[1, 0, 0]], np.float32))
    fields = {"num_points": 1, "features": (), "num_features": 0}
    scaled = [float(cloud(one, np.random.default_rng(seed), scale=0.5, **fields)[0, 0]) for seed in range(200)]
    assert 0.5 <= min(scaled) < 0.53
    assert 1.47 < max(scaled) <= 1.5
    turned = np.array([cloud(one, np.random.default_rng(seed), rotate="z", **fields)[0] for seed in range(200)])
    angles = np.arctan2(turned[:, 1], turned[:, 0]) % (2 * np.pi)
    # Twenty-five of each eighth; a standard deviation is 4.7.
    assert np.histogram(angles, 8, (0, 2 * np.pi))[0].min() >= 8


def test_many_columns_are_read_of_more_points_than_columns_and_any_with_names(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(40)]
    head = "ply\nformat ascii 1.0\nelement vertex 50\n" + "".join(
        f"property float {name}\n" for name in (*"xyz", *names)
    )
    table = RNG.normal(size=(50, 43)).astype(np.float32)
    content = (head + "end_header\n" + "".join(" ".join(map(repr, row)) + "\n" for row in table.tolist())).encode()
    np.testing.assert_array_equal(cloud(content, features=("f39",), num_points=50), table[:, [0, 1, 2, 42]])
    (tmp_path / "a.ply").write_bytes(content)
    stored = Sampled(str(tmp_path / "a.ply"), 50, (0, 0)).read()
    np.testing.assert_array_equal(cloud(stored, num_points=50), table[:, :3])
    np.testing.assert_array_equal(cloud(stored, num_points=50, num_features=40), table)
    with pytest.raises(BadMemberError, match=r"shape \(43, 50\) of float32; expected a row a point"):
        read(npy(table.T))


def test_a_mesh_gives_what_its_corners_have_in_between(tmp_path: Path) -> None:
    # Red is 1 where x is 1, and 0 where x is 0: on the surface red is x.
    head = "ply\nformat ascii 1.0\nelement vertex 3\n" + "".join(f"property float {name}\n" for name in "xyz")
    head += "property uchar red\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    mesh = (head + "0 0 0 0\n1 0 0 255\n0 1 0 0\n3 0 1 2\n").encode()
    for rng in (None, np.random.default_rng(0)):
        found = cloud(mesh, rng, features=("red",), num_points=50)
        np.testing.assert_allclose(found[:, 3], found[:, 0], atol=1e-6)
        assert 0 < found[:, 3].max() < 1
    (tmp_path / "a.ply").write_bytes(mesh)
    built = Sampled(str(tmp_path / "a.ply"), 50, (0, 0)).read()
    stored = cloud(built, features=("red",), num_points=50)
    np.testing.assert_allclose(stored[:, 3], stored[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"num_dimensions": 0}, "num_dimensions"),
        ({"features": ("red", "red")}, "features"),
        ({"features": RGB, "num_features": 2}, "num_features"),
        ({"features": RGB, "feature_divisors": (255,)}, "feature_divisors"),
        ({"features": ("red",), "feature_divisors": (0,)}, "feature_divisors"),
        ({"num_features": 3, "rotate": "any"}, "rotate"),
        ({"num_dimensions": 2, "rotate": "z"}, "rotate"),
        ({"features": ("nx", "ny"), "rotate": "any"}, "rotate"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_key(fields: dict[str, Any], key: str) -> None:
    assert [found for found, _ in PointsConfig(**fields).problems()] == [key]


def test_a_cloud_of_any_columns_is_shown() -> None:
    from matplotlib.figure import Figure

    for content in (ply(binary=True), npy(PLACES[:, :1]), npy(PLACES[:, :2]), npy(PLACES)):
        axes = Figure().subplots()
        PointsConfig.draw(axes, {MAIN: Member("x", content)})
        (drawn,) = axes.collections
        assert len(drawn.get_offsets()) == 6
        if content == ply(binary=True):
            np.testing.assert_allclose(drawn.get_facecolors()[:, :3], COLOURS / 255, atol=1e-6)


def test_a_cloud_without_colours_is_shown_by_its_depth() -> None:
    from matplotlib.figure import Figure

    shown: list[tuple[bytes, np.ndarray]] = [
        (npy(np.hstack([PLACES, PLACES + 5])), PLACES[:, 2]),
        (npy(PLACES[:, :2]), PLACES[:, 1]),
        (npy(PLACES[:, :1]), PLACES[:, 0]),
    ]
    for content, depth in shown:
        axes = Figure().subplots()
        PointsConfig.draw(axes, {MAIN: Member("x", content)})
        (drawn,) = axes.collections
        np.testing.assert_allclose(drawn.get_array(), depth, rtol=1e-6)
        assert (axes.get_aspect(), axes.get_adjustable()) == (1.0, "datalim")
    axes = Figure().subplots()
    PointsConfig.draw(axes, {MAIN: Member("x", off("C", PLACES, COLOURS))})
    np.testing.assert_allclose(axes.collections[0].get_facecolors()[:, :3], COLOURS / 255, atol=1e-6)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), PLACES[:, :2], rtol=1e-6)
    assert PointsConfig.lenient() == PointsConfig(num_dimensions=0)
