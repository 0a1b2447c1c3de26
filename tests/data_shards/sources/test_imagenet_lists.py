"""Which synset a list gives an image, and what becomes of several lists."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from data_shards.sources.parsing import imagenet_lists
from data_shards.sources.parsing.imagenet_lists import synsets

A, B, C = "n01440764", "n01443537", "n02119789"
GROUND_TRUTH, SYNSETS, MAP = (
    "ILSVRC2012_validation_ground_truth.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "map_clsloc.txt",
)
SOLUTION = f"ImageId,PredictionString\nx_1,{A} 1 2 3 4\n"
KIT = {GROUND_TRUTH: "2\n1\n", MAP: f"{C} 1 kit_fox\n{B} 2 great_white\n\nn0\n"}


def put(folder: Path, files: Mapping[str, str]) -> list[Path]:
    for name, text in files.items():
        (folder / name).write_text(text, newline="")
    return [folder / name for name in files]


def asked(paths: list[Path], *images: str, told: list[str] | None = None) -> list[str | None]:
    synset = synsets(paths, (A, B, C), (told if told is not None else []).append)
    return [synset(image) for image in images]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"LOC_val_solution.csv": SOLUTION}, A),
        ({SYNSETS: f"{B}\n{C}\n"}, B),
        (KIT, B),
        ({"val.txt": "x_1.JPEG 2\n"}, C),
        ({"val.txt": f"val/x_1.JPEG\t{B}\n"}, B),
        # Several that say the same, or nothing of the image.
        ({"LOC_val_solution.csv": SOLUTION, SYNSETS: f"{A}\n", "val.txt": "x_2.JPEG 1\n"}, A),
        ({SYNSETS: f"{B}\n", **KIT, "val.txt": "x_1.JPEG 1\n"}, B),
        # A carriage return ends a line as well.
        ({SYNSETS: f"{B}\r{C}\r"}, B),
    ],
)
def test_a_list_says_of_which_synset_an_image_is(tmp_path: Path, files: Mapping[str, str], found: str) -> None:
    assert asked(put(tmp_path, files), "x_1.JPEG") == [found]


def packed_kit(folder: Path, name: str = "ILSVRC2012_devkit_t12.tar.gz", truth: str = GROUND_TRUTH) -> Path:
    kit = folder / name
    with tarfile.open(kit, "w:gz") as tar:
        for name, text in {truth: KIT[GROUND_TRUTH], MAP: KIT[MAP], "readme.txt": "x" * 100}.items():
            header = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            header.size = len(text)
            tar.addfile(header, io.BytesIO(text.encode()))
    return kit


def test_a_later_kit_has_its_list_under_a_longer_name(tmp_path: Path) -> None:
    truth = "ILSVRC2015_clsloc_validation_ground_truth.txt"
    assert asked([packed_kit(tmp_path, "ILSVRC2015_devkit.tar.gz", truth)], "x_1.JPEG", "x_2.JPEG") == [B, C]
    assert asked(put(tmp_path, {truth: KIT[GROUND_TRUTH], MAP: KIT[MAP]}), "x_1.JPEG") == [B]
    with pytest.raises(ValueError, match="no list says what the validation images show"):
        asked(put(tmp_path, {"ILSVRC2010_validation_ground_truth.txt": "2\n", MAP: KIT[MAP]}), "x_1.JPEG")


def test_a_packed_kit_is_read_where_it_is_not_unpacked(tmp_path: Path) -> None:
    kit = packed_kit(tmp_path)
    assert asked([kit], "x_1.JPEG", "x_00002.JPEG") == [B, C]
    unpacked = put(tmp_path, {GROUND_TRUTH: KIT[GROUND_TRUTH].replace("\n", "\r\n")})
    assert asked([kit, *unpacked], "x_1.JPEG") == [B]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"LOC_val_solution.csv": SOLUTION, SYNSETS: f"{B}\n"}, f"solution.csv says {A} and .*labels.txt says {B}"),
        ({SYNSETS: f"{C}\n", **KIT}, f"labels.txt says {C} and .*ground_truth.txt says {B}"),
        ({**KIT, "val.txt": "x_1.JPEG 0\n"}, f"ground_truth.txt says {B} and .*val.txt says {A}"),
    ],
)
def test_lists_that_differ_about_an_image_are_refused(tmp_path: Path, files: Mapping[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"'x_1\.JPEG': .*{sentence}; remove the list that is not of these images"):
        asked(put(tmp_path, files), "x_1.JPEG")


def test_two_lists_of_one_name_are_alike_or_refused(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    paths = [*put(tmp_path, KIT), *put(tmp_path / "kit", KIT)]
    assert asked(paths, "x_1.JPEG") == [B]
    put(tmp_path / "kit", {GROUND_TRUTH: "1\n1\n"})
    with pytest.raises(ValueError, match=r"ground_truth\.txt and .*kit/ILSVRC2012.*ground_truth\.txt differ; remove"):
        asked(paths, "x_1.JPEG")


def test_a_kit_that_is_not_as_its_unpacked_files_is_refused(tmp_path: Path) -> None:
    paths = [packed_kit(tmp_path), *put(tmp_path, {GROUND_TRUTH: "1\n"})]
    with pytest.raises(ValueError, match=r"ground_truth\.txt is not as in .*devkit_t12\.tar\.gz; remove the one"):
        asked(paths, "x_1.JPEG")


def test_lists_of_parts_complete_each_other_and_line_ends_make_no_difference(tmp_path: Path) -> None:
    paths = put(tmp_path, {"LOC_val_solution.csv": SOLUTION, SYNSETS: f"{A}\n{B}\n", MAP: KIT[MAP]})
    assert asked(paths, "x_1.JPEG", "x_2.JPEG") == [A, B]
    (tmp_path / "again").mkdir()
    again = put(tmp_path / "again", {SYNSETS: f"{A}\r\n{B}\r\n\r\n"})
    assert asked([*paths, *again], "x_2.JPEG") == [B]


@pytest.mark.parametrize("name", ["LOC_val_solution.csv", SYNSETS])
def test_the_best_list_may_be_damaged_where_another_is_not(tmp_path: Path, name: str) -> None:
    told: list[str] = []
    assert asked(put(tmp_path, {name: "\n\nx\n", "val.txt": "x_1.JPEG 2\n"}), "x_1.JPEG", told=told) == [C]
    assert told[0].endswith("; it is not needed beside val.txt")


def test_a_list_that_cannot_be_read_is_told_beside_one_that_can(tmp_path: Path) -> None:
    told: list[str] = []
    # Kaggle's list of the images, whose numbers are of no class.
    paths = put(tmp_path, {"LOC_val_solution.csv": SOLUTION, "val.txt": "x_1 1\nx_1000 1000\n"})
    assert asked(paths, "x_1.JPEG", told=told) == [A]
    (sentence,) = told
    assert "val.txt: 'x_1000' has '1000', which is no synset" in sentence
    assert sentence.endswith("it is not needed beside LOC_val_solution.csv")


@pytest.mark.parametrize("image", ["x_0.JPEG", "x_3.JPEG", "x.JPEG", "x_1"])
def test_an_image_whose_number_the_list_lacks_is_refused(tmp_path: Path, image: str) -> None:
    paths = put(tmp_path, {SYNSETS: f"{B}\n{C}\n"})
    assert asked(paths, "x_2.JPEG", "x_000001.jpg", "2_1.png") == [C, B, B]
    with pytest.raises(ValueError, match=rf"synset_labels\.txt: has 2 lines, and none for '{image}'"):
        asked(paths, image)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"val.txt": "x_1.JPEG 3\n"}, "val.txt: 'x_1.JPEG' has '3', which is no synset, such as n01440764"),
        ({"val.txt": "x_1.JPEG dog\n"}, "'x_1.JPEG' has 'dog', which is no synset"),
        ({"val.txt": "x_1.JPEG \n"}, "val.txt: 'x_1.JPEG ': expected the name of an image and its class"),
        ({"LOC_val_solution.csv": "x_1\n"}, "solution.csv: 'x_1': expected the name of an image and its class"),
        ({GROUND_TRUTH: "1\n"}, "numbers synsets, and neither meta.mat nor map_clsloc.txt is there"),
        ({GROUND_TRUTH: "3\n", MAP: KIT[MAP]}, "number '3' is of no synset of the development kit"),
        ({}, "no list says what the validation images show"),
    ],
)
def test_a_list_that_cannot_be_is_refused(tmp_path: Path, files: Mapping[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        asked(put(tmp_path, files), "x_1.JPEG")


def test_an_image_that_a_list_of_names_lacks_has_no_synset(tmp_path: Path) -> None:
    assert asked(put(tmp_path, {"val.txt": "x_1.JPEG 0\n"}), "folder/x_1.png", "x_2.JPEG") == [A, None]


def test_a_list_has_a_greatest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = put(tmp_path, {SYNSETS: f"{B}\n"})
    monkeypatch.setattr(imagenet_lists, "MAX_BYTES", 10)
    assert asked(paths, "x_1.JPEG") == [B]
    monkeypatch.setattr(imagenet_lists, "MAX_BYTES", 9)
    with pytest.raises(ValueError, match="has more than 9 bytes; no list of ImageNet is as long"):
        asked(paths, "x_1.JPEG")
