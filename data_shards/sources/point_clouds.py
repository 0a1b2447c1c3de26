"""Point clouds: ModelNet40's OFF meshes (CLASS/train/*.off), its HDF5 files, or any cloud in a folder of its class."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from data_shards.build import BuildOptions, build_table
from data_shards.decoders.points import MAX_BYTES, points
from data_shards.manifest import Manifest
from data_shards.rows import Content, File, Row
from data_shards.sources import class_folders

MESHES = (".off", ".ply")


def build(folder: Path, out: Path, *, num_points: int = 2048, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards of clouds. A mesh is sampled once to `num_points`, uniformly by area; 0 stores the mesh itself.

    A folder with *.h5 files is read as ModelNet40 in HDF5 (modelnet40_ply_hdf5_2048), any other as class folders.
    """
    if sorted(folder.glob("*.h5")):
        rows, names = read_hdf5(folder)
    else:
        files, names = class_folders.find(folder, "points")
        seed = options.get("seed", 0)
        rows = [
            Row(line, (_content(file.path, line, num_points, seed),), file.label, split=file.split)
            for line, file in enumerate(files)
        ]
    return build_table(rows, out, label_names=names, **options)


def _content(path: str, line: int, num_points: int, seed: int) -> Content:
    if num_points and path.lower().endswith(MESHES):
        return Sampled(path, num_points, (seed, line))
    return File(path)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A mesh, of which points are drawn when it is read."""

    path: str
    num_points: int
    seed: tuple[int, int]
    """Of the build, and the number of the row."""
    extension: str = "npy"

    @property
    def origin(self) -> str:
        """The path."""
        return self.path

    @property
    def num_bytes(self) -> int:
        """Of what is stored."""
        return 12 * self.num_points

    def read(self) -> bytes:
        """Return the points as npy."""
        rng = np.random.default_rng(self.seed)
        return _npy(points(Path(self.path).read_bytes(), self.num_points, rng))


@dataclass(frozen=True, slots=True)
class InHdf5:
    """One cloud of an HDF5 file."""

    path: str
    number: int
    num_bytes: int
    extension: str = "npy"

    @property
    def origin(self) -> str:
        """The path and the number of the cloud in it."""
        return f"{self.path}[{self.number}]"

    def read(self) -> bytes:
        """Return the points as npy."""
        return _npy(np.asarray(_open(self.path)["data"][self.number], np.float32))


def read_hdf5(folder: Path) -> tuple[list[Row], list[str]]:
    """Return the clouds of files such as ply_data_train0.h5 (data (N, P, 3), label (N, 1)), and the class names.

    A file belongs to the split test if its name says so, else to train. Names are the lines of shape_names.txt.
    """
    rows: list[Row] = []
    for path in sorted(folder.glob("*.h5")):
        split = "test" if "test" in path.name else "train"
        for number, (label, num_bytes) in enumerate(_clouds(path)):
            rows.append(Row(len(rows), (InHdf5(str(path), number, num_bytes),), label, split=split))
    listed = folder / "shape_names.txt"
    if listed.is_file():
        return rows, listed.read_text().split()
    return rows, [str(label) for label in range(max(row.label or 0 for row in rows) + 1)]


def _clouds(path: Path) -> Iterator[tuple[int, int]]:
    """Yield label and bytes of each cloud of a file."""
    try:
        file = _open(str(path))
        data, listed = _inside(file, "data"), _inside(file, "label")
        _refuse_bomb(path, data, listed)
        labels = np.asarray(listed).ravel()
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected HDF5 with the arrays data and label ({error})") from error
    if data.ndim != 3 or data.shape[2] < 3 or len(labels) != len(data):
        raise ValueError(f"{path}: data has shape {data.shape} and {len(labels)} labels; expected (N, P, 3) and N")
    yield from ((int(label), 4 * int(np.prod(data.shape[1:]))) for label in labels)


def _inside(file: Any, name: str) -> Any:  # noqa: ANN401 - h5py is untyped
    """Return an array of the file; ValueError where it is not there, or lies in another file."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is not there, or is a link")  # noqa: TRY004 - the file's fault, not the caller's
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual:
        raise ValueError(f"{name} is not an array that lies in the file itself")
    return array


def _refuse_bomb(path: Path, data: Any, labels: Any) -> None:  # noqa: ANN401 - h5py is untyped
    # Of an array that was never written a few bytes can claim any length.
    if max(labels.size, len(data)) > path.stat().st_size or data.size > MAX_BYTES // 4 * len(data):
        raise ValueError(f"data claims shape {data.shape}, label {labels.shape}; more than the file can hold")


@lru_cache(maxsize=8)
def _open(path: str) -> Any:  # noqa: ANN401 - h5py is untyped
    try:
        import h5py
    except ImportError as error:
        raise ValueError("HDF5 needs h5py: pip install 'perceiver-trainer[hdf5]'") from error
    return h5py.File(path)


def _npy(cloud: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    np.save(encoded, cloud)
    return encoded.getvalue()
