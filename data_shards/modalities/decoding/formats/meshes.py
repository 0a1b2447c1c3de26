"""Triangle meshes and point clouds in OFF and PLY files, text and binary."""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_shards.files.quoting import cut

MAX_ELEMENTS = 1 << 23
"""A file that claims more vertices or faces is refused."""
MAX_TEXT_BYTES = 1 << 27
"""Longer text is refused: each number of it is an object before it is one of an array."""

_OFF = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:#[^\r\n]*[\r\n]\s*)*((?:ST)?C?N?)OFF")
NORMAL = ("nx", "ny", "nz")
COLOUR = ("red", "green", "blue", "alpha")
TEXTURE = ("s", "t")


@dataclass(frozen=True)
class Mesh:
    """Vertices, and the triangles between them; a plain point cloud has none."""

    vertices: NDArray[np.float64]
    """The places of the vertices, x, y and z, and behind them their features, (V, 3 and features)."""
    triangles: NDArray[np.int64]
    """The numbers of each triangle's vertices, (F, 3)."""
    features: tuple[str, ...] = ()
    """Names of the features."""


def sample(mesh: Mesh, num_points: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return points drawn uniformly from the surface, shape (num_points, 3 and features)."""
    # By area, so that a large triangle has more points; features are interpolated like places.
    corners = mesh.vertices[mesh.triangles]
    along, across = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # Refused below, in a sentence with the file's name; NumPy's warning has none.
    with np.errstate(over="ignore", invalid="ignore"):
        areas = np.linalg.norm(np.cross(along[:, :3], across[:, :3]), axis=1)
        total = areas.sum()
    # Triangles of no area, or coordinates so large that their product overflows.
    if not (0 < total < np.inf):
        raise ValueError(f"mesh of {len(areas)} triangles has an area of {total / 2}")
    chosen = rng.choice(len(areas), num_points, p=areas / total)
    # A point of the parallelogram beyond the diagonal is folded back: uniform over the triangle, none rejected.
    shares = rng.random((2, num_points, 1))
    folded = np.where(shares.sum(axis=0) > 1, 1 - shares, shares)
    drawn = corners[chosen, 0] + folded[0] * along[chosen] + folded[1] * across[chosen]
    return np.asarray(drawn, np.float32)


def is_off(data: bytes | memoryview) -> bool:
    """Return whether the bytes begin as an OFF file does, after comments, blank lines and a byte order mark."""
    return _OFF.match(data) is not None


def read_off(data: bytes) -> Mesh:
    """Return the mesh of an OFF file; ModelNet40's, whose first line also holds the counts, included.

    Normals (NOFF), colours (COFF) and places in a texture (STOFF) stand behind the coordinates, in this order. Colours
    of bytes become 0 to 1.
    """
    refuse_long(data)
    begin = _OFF.match(data)
    if begin is None:
        raise ValueError("not an OFF file")
    # The keyword stays on its line, so that counts behind it are told from those below it.
    rest = data[begin.end() - 3 :]
    lines = [line for line in (line.split(b"#")[0].strip() for line in rest.splitlines()) if line]
    first = lines[0][3:].split()
    # Rare, and of a byte order that the format leaves open.
    if first == [b"BINARY"]:
        raise ValueError("OFF file in binary; convert it to text, or to PLY")
    counts, body = (first, lines[1:]) if first else (lines[1].split() if len(lines) > 1 else [], lines[2:])
    try:
        num_vertices, num_faces = int(counts[0]), int(counts[1])
        _refuse_short(num_vertices, num_faces, len(body))
        vertices, features = _vertices(begin[1], body[:num_vertices])
        triangles = fan([_corners(line.split()) for line in body[num_vertices : num_vertices + num_faces]])
    except (IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"corrupt OFF file ({cut(str(error))})") from error
    return checked(vertices, triangles, features)


def _vertices(kind: bytes, lines: list[bytes]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the numbers of each vertex to which the kind of the file gives a meaning, and the names of its features.

    Coordinates alone where the lines have another number of numbers than the kind says: nothing tells which is what.
    """
    rows = [line.split() for line in lines]
    normal, texture = (NORMAL if b"N" in kind else ()), (TEXTURE if b"ST" in kind else ())
    num_others = len(rows[0]) - 3 if rows else 0
    num_colours = num_others - len(normal) - len(texture)
    is_sure = num_colours in ((3, 4) if b"C" in kind else (0,)) and {len(row) for row in rows} == {3 + num_others}
    if not kind or not is_sure:
        return np.array([row[:3] for row in rows], np.float64).reshape(len(rows), 3), ()
    table = np.array(rows, np.float64)
    colours = table[:, 3 + len(normal) : 3 + len(normal) + num_colours]
    # OFF has no types: colours are bytes where one of them is above 1.
    if colours.size and colours.max() > 1:
        colours /= 255
    return table, (*normal, *COLOUR[:num_colours], *texture)


def refuse_long(text: bytes) -> None:
    """Raise ValueError for text that is too long to be taken apart."""
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError(
            f"mesh of {len(text)} bytes of text; at most {MAX_TEXT_BYTES} are read: convert it to binary PLY"
        )


def _corners(words: list[bytes]) -> list[int]:
    """Return the vertices of a face; a colour may follow them."""
    count = int(words[0])
    if not 0 <= count < len(words):
        raise ValueError(f"a face of {count} corners in a line of {len(words)} numbers")
    return [int(word) for word in words[1 : 1 + count]]


def _refuse_short(num_vertices: int, num_faces: int, num_lines: int) -> None:
    if max(num_vertices, num_faces) > MAX_ELEMENTS:
        raise ValueError(f"claims {num_vertices} vertices and {num_faces} faces; at most {MAX_ELEMENTS} are read")
    if num_vertices < 0 or num_faces < 0 or num_vertices + num_faces > num_lines:
        raise ValueError(f"claims {num_vertices} vertices and {num_faces} faces, {num_lines} lines are there")


def fan(polygons: list[list[int]]) -> NDArray[np.int64]:
    """Return polygons cut into triangles that share their first corner, shape (F, 3)."""
    triangles = [(corners[0], second, third) for corners in polygons for second, third in pairwise(corners[1:])]
    return np.array(triangles, np.int64).reshape(-1, 3)


def checked(vertices: NDArray[np.float64], triangles: NDArray[np.int64], features: tuple[str, ...] = ()) -> Mesh:
    """Return the mesh; ValueError where it has no vertices, or a triangle one that does not exist."""
    if not len(vertices):
        raise ValueError("mesh without vertices")
    if len(triangles) and (triangles.min() < 0 or triangles.max() >= len(vertices)):
        raise ValueError(f"mesh has a face with a vertex that is not among its {len(vertices)}")
    if not np.isfinite(vertices[:, :3]).all():
        raise ValueError("mesh has NaN or infinite coordinates")
    return Mesh(vertices, triangles, features)
