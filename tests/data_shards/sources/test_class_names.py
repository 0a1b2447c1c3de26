"""Classes that are one and written twice, and such as only look alike."""

from pathlib import Path

import pytest

from data_shards.sources import class_folders, table

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_in_two_spellings_of_unicode_is_one_class(tmp_path: Path) -> None:
    touch(tmp_path, f"train/{COMPOSED}/0.png", "train/bar/1.png", f"test/{DECOMPOSED}/2.png")
    files, names = class_folders.find(tmp_path, "image")
    assert len(names) == 2
    assert len({file.label for file in files if file.path.endswith(("0.png", "2.png"))}) == 1


def test_a_label_in_two_spellings_of_unicode_is_one_class(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\na,{COMPOSED}\nb,{DECOMPOSED}\nc,bar\n")
    found = table.read(tmp_path / "a.csv")
    assert [row.label for row in found.rows] == [1, 1, 0]
    assert len(found.label_names) == 2


@pytest.mark.parametrize("other", ["Cat", "cat ", "cat\u200b"])
def test_folders_that_look_alike_are_told(tmp_path: Path, other: str) -> None:
    touch(tmp_path, "cat/0.png", f"{other}/1.png")
    told: list[str] = []
    _, names = class_folders.find(tmp_path, "image", told.append)
    assert len(names) == 2
    assert any("look alike" in sentence and repr(other) in sentence for sentence in told)


def test_labels_that_look_alike_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,True\nb,true\nc,False\n")
    told: list[str] = []
    table.read(tmp_path / "a.csv", told.append)
    assert told == ["label: the classes 'True' and 'true' look alike; write them in one way if they are one class"]


def test_classes_that_lie_deeper_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "dataset/train/cat/0.png", "dataset/train/dog/1.png")
    told: list[str] = []
    _, names = class_folders.find(tmp_path, "image", told.append)
    assert names == ["dataset"]
    assert told[0].startswith("there is one class alone, and 2 files lie deeper than the folder of their class")
