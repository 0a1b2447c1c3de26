import struct

import numpy as np
import pytest

from data_shards.modalities.decoding.formats.ply import read_ply
from data_shards.modalities.decoding.points import points

VERTICES = [[0.0, 0.0, 1.5], [1.0, 0.0, 1.5], [1.0, 1.0, 1.5], [0.0, 1.0, 1.5]]
HEADER = """ply
format {order} 1.0
comment made by hand
element vertex 4
property uchar red
property float x
property float y
property float z
element face 2
property list uchar int vertex_indices
property uchar flags
end_header
"""
FACES = [[0, 1, 2, 3], [0, 1, 2]]


def encoded(order: str) -> bytes:
    head = HEADER.format(order=order).encode()
    if order == "ascii":
        lines = [f"7 {x} {y} {z}" for x, y, z in VERTICES]
        lines += [f"{len(face)} {' '.join(map(str, face))} 9" for face in FACES]
        return head + "\n".join(lines).encode() + b"\n"
    mark = "<" if "little" in order else ">"
    body = b"".join(struct.pack(f"{mark}Bfff", 7, *vertex) for vertex in VERTICES)
    body += b"".join(struct.pack(f"{mark}B{len(face)}iB", len(face), *face, 9) for face in FACES)
    return head + body


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_every_order_of_bytes_gives_the_mesh(order: str) -> None:
    mesh = read_ply(encoded(order))
    np.testing.assert_array_equal(mesh.vertices[:, :3], VERTICES)
    assert mesh.features == ("red",)
    np.testing.assert_array_equal(mesh.vertices[:, 3], 7 / 255)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]


@pytest.mark.parametrize("comment", ["gemessen in Zürich".encode(), "測定".encode("euc-jp"), b"\xff"])
def test_a_comment_is_in_any_encoding(comment: bytes) -> None:
    data = encoded("ascii").replace(b"made by hand", comment)
    np.testing.assert_array_equal(read_ply(data).vertices[:, :3], VERTICES)


def test_a_mesh_is_sampled_and_a_cloud_is_taken_as_it_is() -> None:
    sampled = points(encoded("ascii"), 100)
    assert sampled.shape == (100, 3)
    assert (sampled[:, 2] == 1.5).all()
    cloud = encoded("ascii").replace(b"element face 2", b"element face 0")
    np.testing.assert_array_equal(points(cloud, 100), VERTICES)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"ply\n", "without a format"),
        (encoded("ascii").replace(b"element vertex 4", b"element vertex 999999999999"), "claims 999999999999"),
        (encoded("ascii").replace(b"element vertex 4", b"element vertex 40"), "corrupt PLY"),
        (encoded("ascii").replace(b"property float x", b"property float w"), "'x' is not in list"),
        (encoded("ascii").replace(b"4 0 1 2 3", b"9 0 1 2 3"), "a list of 9 in a line of 6"),
        (encoded("ascii").replace(b"4 0 1 2 3", b"4 0 1 2 4"), "not among its 4"),
        (encoded("binary_little_endian")[:-9], "ends in the middle"),
        (encoded("binary_little_endian")[:-40], "corrupt PLY"),
        (encoded("utf16"), "corrupt PLY"),
    ],
)
def test_what_is_wrong_with_a_ply_file_is_said(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_ply(data)


def test_properties_without_end_are_refused_before_they_cost_time() -> None:
    properties = b"".join(b"property double p%d\n" % number for number in range(1_001))
    with pytest.raises(ValueError, match="vertex has more than 1000 properties"):
        read_ply(b"ply\nformat binary_little_endian 1.0\nelement vertex 0\n" + properties + b"end_header\n")
