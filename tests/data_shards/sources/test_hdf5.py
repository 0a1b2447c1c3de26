"""Clouds in HDF5: which split a file is, what its labels are, and what lies beside it."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from data_shards.sources import point_clouds


def write(path: Path, labels: object = (0, 1)) -> None:
    path.parent.mkdir(exist_ok=True)
    found = np.asarray(labels)
    with h5py.File(path, "w") as file:
        file["data"] = np.ones((len(found), 4, 3), np.float32)
        file["label"] = found


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("ply_data_test0.h5", "test"),
        ("ply_data_train1.h5", "train"),
        ("latest_train.h5", "train"),
        ("contest.h5", "train"),
        ("Val.H5", "val"),
        ("part-validation-2.hdf5", "validation"),
        ("clouds.h5", "train"),
    ],
)
def test_a_word_of_a_files_name_is_its_split(tmp_path: Path, name: str, split: str) -> None:
    write(tmp_path / "in" / name)
    rows, _ = point_clouds.read_hdf5(tmp_path / "in")
    assert {row.split for row in rows} == {split}


def test_a_file_of_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train_test.h5")
    with pytest.raises(ValueError, match=r"train_test\.h5: names the splits test and train; rename it"):
        point_clouds.read_hdf5(tmp_path)


def test_labels_in_floating_point_are_numbers_too(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", [[0.0], [11.0]])
    rows, names = point_clouds.read_hdf5(tmp_path)
    assert [row.label for row in rows] == [0, 11]
    assert names == [str(number) for number in range(12)]


@pytest.mark.parametrize("labels", [[0.5, 1], [np.nan, 0], [np.inf, 0], [b"a", b"b"]])
def test_labels_that_are_no_numbers_are_refused(tmp_path: Path, labels: list[object]) -> None:
    write(tmp_path / "a.h5", labels)
    with pytest.raises(ValueError, match=r"a\.h5: label holds something else than whole numbers"):
        point_clouds.read_hdf5(tmp_path)


def test_a_label_that_no_line_names_is_refused_with_its_cloud(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5", [1, 2])
    (tmp_path / "shape_names.txt").write_text("chair\nsofa\n")
    with pytest.raises(ValueError, match=r"b\.h5\[1\]: its label is 2, and .*shape_names\.txt names 2 classes, from 0"):
        point_clouds.read_hdf5(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_class_names_are_lines(tmp_path: Path, end: str) -> None:
    write(tmp_path / "a.h5")
    (tmp_path / "shape_names.txt").write_bytes(f"\ufeffnight stand{end} zwölf {end}{end}".encode())
    assert point_clouds.read_hdf5(tmp_path)[1] == ["night stand", "zwölf"]
    (tmp_path / "shape_names.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(ValueError, match=r"shape_names\.txt: line 2: byte 2 "):
        point_clouds.read_hdf5(tmp_path)


def test_splits_and_what_lies_beside_the_files_are_told(tmp_path: Path) -> None:
    for name in ("train0.h5", "train1.h5", "test0.h5", "other.h5"):
        write(tmp_path / "in" / name)
    (tmp_path / "in" / "shape_names.txt").write_text("a\nb\n")
    for name in ("train_files.txt", "chair/a.off", "chair/b.off", ".hidden", "deep/c.h5"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    told: list[str] = []
    built = point_clouds.build(tmp_path / "in", tmp_path / "out", tell=told.append)
    assert {name: split.num_samples for name, split in built.splits.items()} == {"train": 6, "test": 2}
    assert told[0] == "splits: test 1 HDF5 file, train 2 HDF5 files, train (no split in its name) 1 HDF5 file"
    assert told[1].startswith("skipped, no HDF5 file (.h5, .hdf5)")
    for part in ("2 .off", "1 .txt", "1 hidden", "1 .h5"):
        assert part in told[1]


def test_a_cloud_counts_with_the_bytes_that_are_stored_of_it(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    rows, _ = point_clouds.read_hdf5(tmp_path)
    assert [row.members[0].num_bytes for row in rows] == [4 * 4 * 3] * 2
    assert point_clouds.Sampled("a.off", 50, (0, 0)).num_bytes == 4 * 50 * 3


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 2), (3, 4, 3)])
def test_an_array_that_is_no_list_of_clouds_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.ones(shape, np.float32)
        file["label"] = np.zeros(2)
    with pytest.raises(ValueError, match=r"a\.h5: data has shape .* and 2 labels; expected \(N, P, 3\) and N"):
        point_clouds.read_hdf5(tmp_path)
