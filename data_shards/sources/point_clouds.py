"""Point clouds: ModelNet40's OFF meshes (CLASS/train/*.off), its HDF5 files, or any cloud in a folder of its class."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from data_shards.building.builder import BuildOptions, Tell, build_table
from data_shards.building.raw_sample import Content, File, Row
from data_shards.building.splits import TRAIN
from data_shards.files.quoting import counted, shown
from data_shards.format.manifest import Manifest
from data_shards.modalities.decoding.numbers import MAX_BYTES
from data_shards.modalities.decoding.points import cloud, everything
from data_shards.sources import class_folders
from data_shards.sources.parsing import line_list
from data_shards.sources.parsing.folder_files import (
    HIDDEN,
    is_hidden,
    passed_over,
    split_counts,
    split_in,
    suffix_of,
    walk,
)

MESHES = (".off", ".ply")
HDF5 = (".h5", ".hdf5")
SHAPE_NAMES = "shape_names.txt"


def build(folder: Path, out: Path, *, num_points: int = 2048, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards of clouds. A mesh is sampled once to `num_points`, uniformly by area; 0 stores the mesh itself.

    A folder with *.h5 files is read as ModelNet40 in HDF5 (modelnet40_ply_hdf5_2048), any other as class folders.
    """
    if _hdf5_files(folder):
        rows, names = read_hdf5(folder, options.get("tell"))
    else:
        files, names = class_folders.find(folder, "points", options.get("tell"))
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
    """A mesh, of which points are drawn when it is read: x, y, z, then the features of its file in their order."""

    path: str
    num_points: int
    seed: tuple[int, int]
    """The seed of the build, and the number of the row."""
    extension: str = "npy"

    @property
    def origin(self) -> str:
        """The path."""
        return self.path

    @property
    def num_bytes(self) -> int:
        """Return the size of the stored points."""
        # Three numbers of four bytes; what else the file has is not known before it is read.
        return 12 * self.num_points

    def read(self) -> bytes:
        """Return the points as npy."""
        # By the row and not from one stream: whichever process reads the mesh, and in whichever order, the points are
        # the same.
        rng = np.random.default_rng(self.seed)
        return _npy(everything(cloud(File(self.path).read(), self.num_points, rng)))


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


def _hdf5_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in HDF5 and not path.name.startswith("."))


def read_hdf5(folder: Path, tell: Tell | None = None) -> tuple[list[Row], list[str]]:
    """Return the clouds of files such as ply_data_train0.h5 (data (N, P, 3), label (N, 1)), and the class names.

    A file belongs to the split that its name says, else to train. Names are the lines of shape_names.txt.
    """
    rows: list[Row] = []
    listed = folder / SHAPE_NAMES
    files = _hdf5_files(folder)
    splits = {path: split_in(path) for path in files}
    _tell_splits(folder, splits, tell)
    for path in files:
        for number, (label, num_bytes) in enumerate(_clouds(path)):
            rows.append(Row(len(rows), (InHdf5(str(path), number, num_bytes),), label, split=splits[path] or TRAIN))
    if listed.is_file():
        names = line_list.names(listed)
        if beyond := next((row for row in rows if (row.label or 0) >= len(names)), None):
            raise ValueError(
                f"{beyond.members[0].origin}: its label is {beyond.label}, and {listed} names "
                f"{counted(len(names), 'class')}, from 0 on; take the list that came with the file"
            )
        return rows, names
    # Without names they are numbers, and a number that no cloud has keeps its place.
    return rows, [str(label) for label in range(max((row.label or 0 for row in rows), default=-1) + 1)]


def _tell_splits(folder: Path, splits: Mapping[Path, str | None], tell: Tell | None) -> None:
    """Tell what was taken for which split, and which files are skipped."""
    if tell is None:
        return
    counts = Counter(split or f"{TRAIN} (no split in its name)" for split in splits.values())
    tell(split_counts(counts, "HDF5 file"))
    passed: Counter[str] = Counter()
    for _, names, others in walk(folder):
        here = [name for name in others if names or not (folder / name in splits or name == SHAPE_NAMES)]
        passed.update(HIDDEN if is_hidden((*names, name)) else suffix_of(name) for name in here)
    if passed:
        tell(passed_over(passed, f"HDF5 file ({', '.join(HDF5)}) of {folder}"))


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
        raise ValueError(
            f"{path}: data has shape {data.shape} and {counted(len(labels), 'label')}; expected (N, P, 3) and N"
        )
    if labels.dtype.kind not in "iuf" or not (np.isfinite(labels) & (labels == np.round(labels))).all():
        raise ValueError(f"{path}: label holds something else than whole numbers ({shown(labels[:3].tolist())}, ...)")
    yield from ((int(label), 4 * int(np.prod(data.shape[1:]))) for label in labels)


def _inside(file: Any, name: str) -> Any:  # noqa: ANN401 - h5py is untyped
    """Return an array of the file; ValueError where it is not there, or lies in another file."""
    import h5py

    # HDF5 can name arrays in any other file of the machine; a data set from elsewhere must not read those.
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
# Kept open: thousands of rows name the same file.
def _open(path: str) -> Any:  # noqa: ANN401 - h5py is untyped
    try:
        import h5py
    except ImportError as error:
        raise ValueError("HDF5 needs h5py: pip install h5py") from error
    return h5py.File(path)


def _npy(cloud: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    np.save(encoded, cloud)
    return encoded.getvalue()
