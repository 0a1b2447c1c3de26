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
Line = list[tuple[str, list[float]]]
"""The letter of struct and the numbers of each part of an element."""
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
        (encoded("ascii").replace(b"element vertex 4", b"element vertex 8388609"), "vertex; at most 8388608 are read"),
        (encoded("ascii").replace(b"element vertex 4", b"element vertex -1"), "claims -1 of vertex; at most"),
        (encoded("ascii").replace(b"element vertex 4", b"element vertex 40"), "claims 40 of vertex, 6 are there"),
        (encoded("ascii").replace(b"element face 2", b"element faces"), "header line 'element faces'"),
        (encoded("ascii").replace(b"element vertex", b"element corner"), "mesh without vertices"),
        (
            encoded("binary_little_endian").replace(b"float z\n", b"float z\nproperty list uchar int w\n"),
            "vertex has lists",
        ),
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


def with_others(order: str) -> bytes:
    """The mesh with elements before, between and behind its own, some of them with lists, one of them empty."""
    lists = ("property short a", "property list uchar ushort b", "property list uchar int c", "property char d")
    head = ["ply", f"format {order} 1.0", "element strip 2", *lists]
    head += ["element vertex 3", *(f"property float {axis}" for axis in "xyz")]
    head += ["element none 0", "property int a", "element edge 2", "property int a", "property uchar b"]
    head += ["element face 2", "property uchar material", "property list uchar uint vertex_index"]
    head += ["element strip 1", *lists, "element none 0", "property int a", "end_header", ""]
    strips: Line = [("h", [7]), ("B", [2]), ("H", [0, 1]), ("B", [1]), ("i", [2]), ("b", [-1])]
    corners: Line = [("f", vertex) for vertex in VERTICES[:3]]
    edges: Line = [("i", [5]), ("B", [6])]
    faces: list[Line] = [[("B", [9]), ("B", [0])], [("B", [9]), ("B", [3]), ("I", [2, 1, 0])]]
    lines = [strips, strips, *([corner] for corner in corners), edges, edges, *faces, strips]
    if order == "ascii":
        body = "\n".join(" ".join(str(value) for _, values in line for value in values) for line in lines).encode()
    else:
        mark = "<" if "little" in order else ">"
        parts = [part for line in lines for part in line]
        body = b"".join(struct.pack(f"{mark}{len(values)}{kind}", *values) for kind, values in parts)
    return "\n".join(head).encode() + body


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_elements_that_are_no_part_of_a_mesh_are_passed_over(order: str) -> None:
    mesh = read_ply(with_others(order))
    np.testing.assert_array_equal(mesh.vertices, VERTICES[:3])
    assert mesh.features == ()
    assert mesh.triangles.tolist() == [[2, 1, 0]]


def test_a_list_behind_other_numbers_is_no_longer_than_its_line() -> None:
    with pytest.raises(ValueError, match="a list of 4 in a line of 5"):
        read_ply(with_others("ascii").replace(b"9 3 2 1 0", b"9 4 2 1 0"))


@pytest.mark.parametrize(("kind", "letter", "highest"), [("uchar", "B", 255), ("ushort", "H", 65535), ("int", "i", 1)])
def test_a_colour_of_bytes_or_of_16_bits_is_a_part_of_the_highest(kind: str, letter: str, highest: int) -> None:
    data = encoded("binary_little_endian").partition(b"element face")[0].replace(b"uchar red", f"{kind} red".encode())
    data += b"end_header\n" + b"".join(struct.pack(f"<{letter}fff", 200, *vertex) for vertex in VERTICES)
    np.testing.assert_array_equal(read_ply(data).vertices[:, 3], 200 / highest)


@pytest.mark.parametrize(
    ("kinds", "letter"),
    [
        (("char", "int8"), "b"),
        (("uchar", "uint8"), "B"),
        (("short", "int16"), "h"),
        (("ushort", "uint16"), "H"),
        (("int", "int32"), "i"),
        (("uint", "uint32"), "I"),
        (("float", "float32"), "f"),
        (("double", "float64"), "d"),
    ],
)
def test_every_kind_of_number_is_read_by_both_of_its_names(kinds: tuple[str, str], letter: str) -> None:
    for kind in kinds:
        head = "".join(f"property {kind} {axis}\n" for axis in "xyz")
        data = f"ply\nformat binary_big_endian 1.0\nelement vertex 1\n{head}end_header\n".encode()
        found = read_ply(data + struct.pack(f">3{letter}", 1, 2, 3))
        np.testing.assert_array_equal(found.vertices, [[1, 2, 3]])


def test_properties_without_end_are_refused_before_they_cost_time() -> None:
    properties = b"".join(b"property double p%d\n" % number for number in range(1_001))
    with pytest.raises(ValueError, match="vertex has more than 1000 properties"):
        read_ply(b"ply\nformat binary_little_endian 1.0\nelement vertex 0\n" + properties + b"end_header\n")
