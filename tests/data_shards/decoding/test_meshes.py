import numpy as np
import pytest

from data_shards.modalities.decoding.formats import meshes
from data_shards.modalities.decoding.formats.meshes import Mesh, read_off, sample
from data_shards.modalities.decoding.points import points

# A flat L of a square with corner (0, 0) and side 1, and one with corner (1, 0) and side 2; z is 5.
VERTICES = [[0, 0, 5], [1, 0, 5], [1, 1, 5], [0, 1, 5], [3, 0, 5], [3, 2, 5], [1, 2, 5]]
OFF = b"""OFF
# an L
7 2 0
0 0 5
1 0 5
1 1 5
0 1 5
3 0 5
3 2 5
1 2 5
4 0 1 2 3
4 1 4 5 6 255 0 0
"""


@pytest.mark.parametrize(
    "data", [OFF, OFF.replace(b"OFF\n# an L\n7 2 0", b"OFF7 2 0"), OFF.replace(b"\n", b"\r\n\r\n")]
)
def test_an_off_file_gives_its_triangles(data: bytes) -> None:
    mesh = read_off(data)
    np.testing.assert_array_equal(mesh.vertices, VERTICES)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [1, 4, 5], [1, 5, 6]]


BEFORE = [
    b"# made by a scanner\n",
    b"\n\n# one\n  # two: OFF 1 2 3\n\n",
    b"\xef\xbb\xbf",
    b"# one\r\n\r\n",
    b"#\r# two\r",
    b"\n",
]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("after", [b"OFF\n7 2 0\n", b"OFF 7 2 0\n", b"OFF7 2 0\n", b"OFF # counts:\n# here\n7 2 0\n"])
def test_an_off_file_may_begin_with_a_comment(before: bytes, after: bytes) -> None:
    data = before + after + OFF.partition(b"7 2 0\n")[2]
    np.testing.assert_array_equal(read_off(data).vertices, VERTICES)
    np.testing.assert_array_equal(points(data), points(OFF))


@pytest.mark.parametrize("kind", [b"COFF", b"NOFF", b"CNOFF", b"STOFF"])
def test_colours_and_normals_behind_the_coordinates_are_passed_over(kind: bytes) -> None:
    rows = OFF.splitlines()[3:10]
    data = b"\n".join([kind, b"7 2 0", *(row + b" 1 0 0 1" for row in rows), *OFF.splitlines()[10:]])
    np.testing.assert_array_equal(points(data), points(OFF))


NORMAL, COLOUR, TEXTURE = ("nx", "ny", "nz"), ("red", "green", "blue"), ("s", "t")


@pytest.mark.parametrize(
    ("kind", "rows", "features", "found"),
    [
        ("", ["0 1 2", "3 4 5"], (), [[0, 1, 2], [3, 4, 5]]),
        # Nothing says what the others are.
        ("", ["0 1 2 9 8 7", "3 4 5 9 8 7"], (), [[0, 1, 2], [3, 4, 5]]),
        ("C", ["0 1 2 9 8", "3 4 5 9 8"], (), [[0, 1, 2], [3, 4, 5]]),
        ("C", ["0 1 2 9 8 7 6 5", "3 4 5 9 8 7 6 5"], (), [[0, 1, 2], [3, 4, 5]]),
        ("N", ["0 1 2 9 8 7 6", "3 4 5 9 8 7 6"], (), [[0, 1, 2], [3, 4, 5]]),
        ("N", ["0 1 2 9 8", "3 4 5 9 8"], (), [[0, 1, 2], [3, 4, 5]]),
        ("N", ["0 1 2 9 8 7 1 1 1", "3 4 5 9 8 7 1 1 1"], (), [[0, 1, 2], [3, 4, 5]]),
        ("C", ["0 1 2 1 0 1", "3 4 5"], (), [[0, 1, 2], [3, 4, 5]]),
        ("C", ["0 1 2", "3 4 5 1 0 1"], (), [[0, 1, 2], [3, 4, 5]]),
        ("N", ["0 1 2 9 8 7", "3 4 5 6 7 8"], NORMAL, [[0, 1, 2, 9, 8, 7], [3, 4, 5, 6, 7, 8]]),
        ("ST", ["0 1 2 9 8", "3 4 5 7 6"], TEXTURE, [[0, 1, 2, 9, 8], [3, 4, 5, 7, 6]]),
        ("C", ["0 1 2 1 0 0.5", "3 4 5 0 0 1"], COLOUR, [[0, 1, 2, 1, 0, 0.5], [3, 4, 5, 0, 0, 1]]),
        ("C", ["0 1 2 1 0 0 0"], (*COLOUR, "alpha"), [[0, 1, 2, 1, 0, 0, 0]]),
        ("C", ["0 1 2 255 0 51", "3 4 5 1 0 0"], COLOUR, [[0, 1, 2, 1, 0, 0.2], [3, 4, 5, 1 / 255, 0, 0]]),
        (
            "STCN",
            ["0 1 2 -9 8 7 0 255 51 102 6 5"],
            (*NORMAL, *COLOUR, "alpha", *TEXTURE),
            [[0, 1, 2, -9, 8, 7, 0, 1, 0.2, 0.4, 6, 5]],
        ),
        ("C", ["0 1 2 2 0 1"], COLOUR, [[0, 1, 2, 2 / 255, 0, 1 / 255]]),
        # Of features a number may be missing.
        ("C", ["0 1 2 nan 0 1"], COLOUR, [[0, 1, 2, np.nan, 0, 1]]),
        # Numbers above 1 beside the colours do not make these bytes.
        ("STCN", ["0 1 2 9 8 7 1 0 1 6 5"], (*NORMAL, *COLOUR, *TEXTURE), [[0, 1, 2, 9, 8, 7, 1, 0, 1, 6, 5]]),
    ],
)
def test_numbers_behind_the_coordinates_are_what_the_kind_of_the_file_says(
    kind: str, rows: list[str], features: tuple[str, ...], found: list[list[float]]
) -> None:
    mesh = read_off("\n".join([f"{kind}OFF", f"{len(rows)} 0 0", *rows, ""]).encode())
    assert mesh.features == features
    np.testing.assert_allclose(mesh.vertices, found, rtol=1e-15)
    assert mesh.triangles.shape == (0, 3)


@pytest.mark.parametrize("data", [b"# OFF 1 0 0", b"#\n", b"", b"OF", b"off\n1 0 0\n0 0 0\n", b"# a\nply\n"])
def test_what_begins_otherwise_is_no_off_file(data: bytes) -> None:
    for read in (read_off, points):
        with pytest.raises(ValueError, match=r"not an OFF file|not a point cloud"):
            read(data)


def test_points_are_uniform_over_the_area() -> None:
    points = sample(read_off(OFF), 20_000, np.random.default_rng(0))
    assert points.shape == (20_000, 3)
    assert (points[:, 2] == 5).all()
    large = points[points[:, 0] >= 1]
    # The small square has 1/5 of the area; a standard deviation of the share is 0.0028.
    assert len(large) / 20_000 == pytest.approx(0.8, abs=0.015)
    quarters = np.histogram2d(large[:, 0], large[:, 1], bins=[[1, 2, 3], [0, 1, 2]])[0]
    np.testing.assert_allclose(quarters / len(large), 0.25, atol=0.02)


def test_equal_generators_draw_equal_points() -> None:
    drawn = [sample(read_off(OFF), 9, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"OFF", "corrupt OFF"),
        (b"PLY", "not an OFF"),
        (OFF.replace(b"7 2 0", b"7 200 0"), "claims 7 vertices and 200 faces, 9 lines are there"),
        (OFF.replace(b"7 2 0", b"-7 2 0"), "claims -7"),
        (OFF.replace(b"4 0 1 2 3", b"4 0 1 2 9"), "not among its 7"),
        (OFF.replace(b"4 0 1 2 3", b"x 0 1 2 3"), "corrupt OFF"),
        (OFF.replace(b"4 0 1 2 3", b"4 0 1 2"), "a face of 4 corners in a line of 4 numbers"),
        (OFF.replace(b"4 0 1 2 3", b"-1 0 1 2"), "a face of -1 corners"),
        (b"OFF BINARY\n\0\0\0\x07", "in binary"),
        (OFF.replace(b"7 2 0", b"9999999 2 0"), "at most 8388608 are read"),
        (OFF.replace(b"3 2 5", b"3 nan 5"), "NaN"),
        (b"OFF 0 0 0", "without vertices"),
        (b"OFF\n0 0 0", "without vertices"),
        (b"COFF\n0 0 0\n", "without vertices"),
        (OFF.replace(b"7 2 0", b"7 -2 0"), "claims 7 vertices and -2 faces"),
        (OFF.replace(b"7 2 0", b"7 3 0"), "claims 7 vertices and 3 faces, 9 lines are there"),
        (OFF.replace(b"7 2 0", b"8388609 0 0"), "at most 8388608 are read"),
        (OFF.replace(b"7 2 0", b"7 8388609 0"), "at most 8388608 are read"),
        (OFF.replace(b"7 2 0", b"8388608 0 0"), "9 lines are there"),
        (OFF.replace(b"4 0 1 2 3", b"4 0 1 2 7"), "not among its 7"),
        (OFF.replace(b"4 0 1 2 3", b"4 0 1 2 -1"), "not among its 7"),
        (OFF.replace(b"3 2 5", b"3 2 inf"), "NaN or infinite"),
    ],
)
def test_what_is_wrong_with_an_off_file_is_said(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_off(data)


def test_a_face_without_corners_is_none() -> None:
    assert read_off(OFF.replace(b"4 0 1 2 3", b"0")).triangles.tolist() == [[1, 4, 5], [1, 5, 6]]


def test_a_mesh_may_have_as_many_vertices_and_bytes_as_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "MAX_ELEMENTS", 7)
    monkeypatch.setattr(meshes, "MAX_TEXT_BYTES", len(OFF))
    assert len(read_off(OFF).vertices) == 7


def test_a_mesh_without_area_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match="area of 0"):
        sample(Mesh(np.ones((3, 3)), np.array([[0, 1, 2]])), 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    "data",
    [
        OFF,
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        b"end_header\n" + b"1 " * 99,
    ],
)
def test_endless_text_is_refused_before_it_is_taken_apart(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(meshes, "MAX_TEXT_BYTES", 50)
    with pytest.raises(ValueError, match="bytes of text; at most 50 are read"):
        points(data)


def test_a_mesh_whose_area_overflows_is_refused_without_a_warning() -> None:
    huge = Mesh(np.diag([0, 1e300, 1e300]), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="mesh of 1 triangles has an area of inf"):
        sample(huge, 4, np.random.default_rng(0))
