"""PLY files, in text or binary: the vertices' x, y, z and further properties, and the faces.

    ply
    format binary_little_endian 1.0
    element vertex 8                              8 times x, y, z, red: 13 bytes each
    property float x    ...    property uchar red
    element face 12                               12 times a count and so many numbers of vertices
    property list uchar int vertex_indices
    end_header

Elements follow each other without a mark, so that where one begins is known only when all before it are read.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_shards.files.quoting import cut, shown
from data_shards.modalities.decoding.formats.meshes import MAX_ELEMENTS, Mesh, checked, fan, refuse_long

END: Final = b"end_header"
_MAX_PROPERTIES = 1_000
"""The most properties of an element: each costs time for each vertex, whether or not there are any."""
ORDERS: Final = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
# The format has two names for each: char is of its first description, int8 of later writers.
KINDS: Final = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float": "f4",
    "double": "f8",
    "float32": "f4",
    "float64": "f8",
}

HIGHEST: Final = {"u1": 255, "u2": 65535}
"""What becomes 1 of a property of that kind, such as a colour."""


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[tuple[str, str, str], ...]
    """(name, kind, kind of the list's length or "")."""

    @property
    def has_lists(self) -> bool:
        return any(length for _, _, length in self.properties)


def read_ply(data: bytes) -> Mesh:
    """Return the mesh of a PLY file, without triangles where it is a cloud; ValueError says what is wrong with it."""
    head, _, body = data.partition(END)
    try:
        # Comments are in any encoding.
        order, elements = _header(head.decode("latin-1"))
        # The line of end_header may end in CR LF.
        body = body.partition(b"\n")[2]
        reader = _Text(body) if not order else _Binary(body, order)
        vertices, faces = np.zeros((0, 3)), fan([])
        features: tuple[str, ...] = ()
        for element in elements:
            if element.name == "vertex":
                vertices, features = _vertices(element, reader.table(element))
            elif element.name == "face":
                faces = fan(reader.lists(element))
            # Read although nothing wants it: in a binary file only reading says where the next element begins.
            elif element.has_lists:
                reader.lists(element)
            else:
                reader.table(element)
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"corrupt PLY file ({cut(str(error))})") from error
    return checked(vertices, faces, features)


def _header(head: str) -> tuple[str, list[_Element]]:
    order: str | None = None
    elements: list[_Element] = []
    for line in head.splitlines()[1:]:
        match line.split():
            case ["format", kind, _]:
                order = ORDERS[kind]
            case ["element", name, count]:
                if not 0 <= int(count) <= MAX_ELEMENTS:
                    raise ValueError(f"claims {cut(count)} of {cut(name)}; at most {MAX_ELEMENTS} are read")
                elements.append(_Element(name, int(count), ()))
            case ["property", "list", length, kind, name]:
                elements[-1] = _with(elements[-1], (name, KINDS[kind], KINDS[length]))
            case ["property", kind, name]:
                elements[-1] = _with(elements[-1], (name, KINDS[kind], ""))
            case ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise ValueError(f"header line {shown(line)}")
    if order is None:
        raise ValueError("header without a format")
    return order, elements


def _with(element: _Element, new: tuple[str, str, str]) -> _Element:
    if len(element.properties) == _MAX_PROPERTIES:
        raise ValueError(f"{cut(element.name)} has more than {_MAX_PROPERTIES} properties")
    return _Element(element.name, element.count, (*element.properties, new))


def _vertices(element: _Element, table: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return x, y, z and the other properties, bytes and 16 bits without a sign as 0 to 1, with the others' names."""
    names = [name for name, _, _ in element.properties]
    others = [number for number, name in enumerate(names) if name not in ("x", "y", "z")]
    highest = np.array([HIGHEST.get(kind, 1) for _, kind, _ in element.properties])
    vertices = table[:, [*(names.index(axis) for axis in "xyz"), *others]]
    vertices[:, 3:] /= highest[others]
    return vertices, tuple(names[number] for number in others)


class _Text:
    """Elements of a text body, a line each."""

    def __init__(self, body: bytes) -> None:
        refuse_long(body)
        self._lines = body.splitlines()
        self._place = 0

    def _next(self, element: _Element) -> list[list[bytes]]:
        lines = self._lines[self._place : self._place + element.count]
        self._place += element.count
        if len(lines) < element.count:
            raise ValueError(f"claims {element.count} of {cut(element.name)}, {len(lines)} are there")
        return [line.split() for line in lines]

    def table(self, element: _Element) -> NDArray[np.float64]:
        rows = self._next(element)
        return np.array(rows, np.float64).reshape(element.count, len(element.properties))

    def lists(self, element: _Element) -> list[list[int]]:
        return [_first_list(element, [float(word) for word in words]) for words in self._next(element)]


def _first_list(element: _Element, values: list[float]) -> list[int]:
    # Every property before the first list is one number.
    place = [bool(length) for _, _, length in element.properties].index(True)
    count = int(values[place])
    if not 0 <= count <= len(values) - place - 1:
        raise ValueError(f"a list of {count} in a line of {len(values)}")
    return [int(value) for value in values[place + 1 : place + 1 + count]]


class _Binary:
    """Elements of a binary body, one after the other."""

    def __init__(self, body: bytes, order: str) -> None:
        self._body = body
        self._order = order
        self._place = 0

    def table(self, element: _Element) -> NDArray[np.float64]:
        if element.has_lists:
            # Its rows have different lengths, and are no table.
            raise ValueError(f"{cut(element.name)} has lists")
        # Packed, as the format has it: no gaps between properties of different sizes.
        dtype = np.dtype([(name, self._order + kind) for name, kind, _ in element.properties])
        rows = np.frombuffer(self._body, dtype, element.count, self._place)
        self._place += rows.nbytes
        columns = [rows[name].astype(np.float64) for name, _, _ in element.properties]
        return np.stack(columns, axis=1)

    def lists(self, element: _Element) -> list[list[int]]:
        """Return the first list of each, passing over everything else."""
        found = []
        # One by one: how long a list is stands in front of it.
        for _ in range(element.count):
            lists = []
            for _, kind, length in element.properties:
                count = int(self._scalars(length, 1)[0]) if length else 1
                values = self._scalars(kind, count)
                if length:
                    lists.append(values.astype(np.int64).tolist())
            found.append(lists[0])
        return found

    def _scalars(self, kind: str, count: int) -> NDArray[np.generic]:
        dtype = np.dtype(self._order + kind)
        if count < 0 or count * dtype.itemsize > len(self._body) - self._place:
            raise ValueError("ends in the middle of a list")
        values = np.frombuffer(self._body, dtype, count, self._place)
        self._place += values.nbytes
        return values
