"""ImageNet in every form in which it is found: the same classes, whatever says what a validation image shows."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from data_shards.sources.parsing import imagenet_lists

Build = Callable[..., Any]
Built = Any
Put = Callable[..., Path]
Encode = Callable[..., bytes]
SYNSETS = ("n01440764", "n02119789", "n01443537")
"""Of three classes, in the order of their numbers in the development kit, which is not that of the names."""
VALIDATION = (2, 1, 3, 2)
"""Those numbers, of each validation image."""
SHOWN = ["n02119789", "n01440764", "n01443537", "n02119789"]


def packed(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return file.getvalue()


def train_files(picture: Encode) -> dict[str, dict[str, bytes]]:
    return {
        synset: {f"{synset}_{number}.JPEG": picture(10 * (1 + place) + number, "JPEG") for number in (1, 2)}
        for place, synset in enumerate(SYNSETS)
    }


def validation_files(picture: Encode) -> dict[str, bytes]:
    return {
        f"ILSVRC2012_val_{number:08d}.JPEG": picture(100 + number, "JPEG") for number in range(1, len(VALIDATION) + 1)
    }


def meta() -> bytes:
    """The development kit's table of synsets, with one that is no class of the challenge."""
    rows = [(number, name.encode()) for number, name in enumerate((*SYNSETS, "n00001740"), start=1)]
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, [("ILSVRC2012_ID", "O"), ("WNID", "O")]).reshape(-1, 1)})
    return file.getvalue()


GROUND_TRUTH = "".join(f"{number}\n" for number in VALIDATION).encode()
KIT = "ILSVRC2012_devkit_t12/data/"
LISTS: dict[str, Callable[[], dict[str, bytes]]] = {
    "kit": lambda: {f"{KIT}ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH, f"{KIT}meta.mat": meta()},
    "packed kit": lambda: {
        "ILSVRC2012_devkit_t12.tar.gz": packed(
            {f"{KIT}ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH, f"{KIT}meta.mat": meta()}, "w:gz"
        )
    },
    "map": lambda: {
        "ILSVRC2012_validation_ground_truth.txt": GROUND_TRUTH,
        "map_clsloc.txt": "".join(f"{synset} {at} a_word\n" for at, synset in enumerate(SYNSETS, start=1)).encode(),
    },
    "kaggle": lambda: {
        "LOC_val_solution.csv": b"ImageId,PredictionString\n"
        + "".join(
            f"ILSVRC2012_val_{at:08d},{synset} 1 2 3 4 {synset} 5 6 7 8\n" for at, synset in enumerate(SHOWN, start=1)
        ).encode()
    },
    "synsets": lambda: {"imagenet_2012_validation_synset_labels.txt": "".join(f"{s}\n" for s in SHOWN).encode()},
    "numbers": lambda: {
        "val.txt": "".join(
            f"ILSVRC2012_val_{at:08d}.JPEG {sorted(SYNSETS).index(synset)}\n"
            for at, synset in enumerate(SHOWN, start=1)
        ).encode()
    },
}


def check(built: Built) -> None:
    assert built.manifest.label_names == tuple(sorted(SYNSETS))
    assert built.counts == {"train": 6, "val": 4}
    assert sorted(built.labels()) == sorted(SYNSETS * 2)
    assert built.labels("val") == SHOWN


@pytest.mark.parametrize("of", LISTS)
def test_the_two_tars_are_read_without_unpacking(build: Build, put: Put, picture: Encode, of: str) -> None:
    train = {f"{synset}.tar": packed(files) for synset, files in train_files(picture).items()}
    put("ILSVRC2012_img_train.tar", packed(train))
    put("ILSVRC2012_img_val.tar", packed(validation_files(picture)))
    put("ILSVRC2012_img_test.tar", packed({}))
    for name, data in LISTS[of]().items():
        put(name, data)
    built = build("imagenet")
    check(built)
    first, *_ = built.samples()
    assert first == {"jpeg": picture(11, "JPEG"), "cls": b"0"}
    assert "3 classes; splits: train 6, val 4 images" in built.told
    assert "skipped, no image of a class, or list of them: 1 .tar" in built.told


@pytest.mark.parametrize("root", ["", "ILSVRC/Data/CLS-LOC/"])
def test_folders_of_synsets_and_a_flat_folder_are_read(build: Build, put: Put, picture: Encode, root: str) -> None:
    for synset, files in train_files(picture).items():
        for name, data in files.items():
            put(f"{root}train/{synset}/{name}", data)
    for name, data in validation_files(picture).items():
        put(f"{root}val/{name}", data)
    put(f"{root}val/notes.txt")
    for name, data in LISTS["kaggle"]().items():
        put(name, data)
    built = build("imagenet")
    check(built)
    assert "skipped, no image of a class, or list of them: 1 .txt" in built.told


def test_tars_of_synsets_and_sorted_validation_images_are_read(build: Build, put: Put, picture: Encode) -> None:
    for synset, files in train_files(picture).items():
        put(f"train/{synset}.tar", packed(files))
    for (name, data), synset in zip(validation_files(picture).items(), SHOWN, strict=True):
        put(f"val/{synset}/{name}", data)
    put("val/n09999999/a.JPEG", picture(0, "JPEG"))
    put("train/loose.JPEG", picture(0, "JPEG"))
    built = build("imagenet")
    assert built.counts == {"train": 6, "val": 4}
    assert sorted(built.labels("val")) == sorted(SHOWN)
    assert "1 for validation of a class without training images" in built.told
    assert "1 for training in no folder of a synset" in built.told


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "no list says what the validation images show; add ILSVRC2012_validation_ground_truth.txt"),
        (
            {"ILSVRC2012_validation_ground_truth.txt": b"1\n"},
            "numbers synsets, and neither meta.mat nor map_clsloc.txt",
        ),
        (
            {"ILSVRC2012_validation_ground_truth.txt": b"9\n", "map_clsloc.txt": b"n01440764 1 a\n"},
            "number '9' is of no synset",
        ),
        ({"imagenet_2012_validation_synset_labels.txt": b"n01440764\n"}, r"has 1 line, and none for .*00000002.JPEG'"),
        ({"val.txt": b"ILSVRC2012_val_00000001.JPEG 7\n"}, "which is no synset, such as n01440764"),
        ({"val.txt": b"ILSVRC2012_val_00000001.JPEG 0\n"}, r"list of validation images has no .*00000002.JPEG'"),
        ({"val.txt": b"ILSVRC2012_val_00000001.JPEG\n"}, "expected the name of an image and its class"),
        ({"meta.mat": b"no", "ILSVRC2012_validation_ground_truth.txt": b"1\n"}, "meta.mat: expected synsets"),
        ({"ILSVRC2012_devkit_t12.tar.gz": b"no"}, "devkit_t12.tar.gz: cannot be read"),
        ({"ILSVRC2012_devkit_t12.tar.gz": packed({}, "w:gz")}, "holds no ILSVRC2012_validation_ground_truth.txt"),
    ],
)
def test_validation_images_without_their_classes_are_refused(
    build: Build, put: Put, picture: Encode, files: dict[str, bytes], sentence: str
) -> None:
    put("train/n01440764/a.JPEG", picture(0, "JPEG"))
    for name, data in {**{f"val/{n}": d for n, d in validation_files(picture).items()}, **files}.items():
        put(name, data)
    with pytest.raises(ValueError, match=sentence):
        build("imagenet")


@pytest.mark.parametrize("of", ["kit", "map", "kaggle", "synsets", "numbers"])
def test_what_editors_add_to_a_list_changes_no_class(put: Put, of: str) -> None:
    paths = [
        put(name, data if name.endswith(".mat") else b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") + b" \r\n\r\n")
        for name, data in LISTS[of]().items()
    ]
    synset_of = imagenet_lists.synsets(paths, sorted(SYNSETS), [].append)
    assert [synset_of(f"ILSVRC2012_val_{number:08d}.JPEG") for number in range(1, 5)] == SHOWN


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"imagenet_2012_validation_synset_labels.txt": b"n01440764\n\nn02119789\n"},
            r"synset_labels.txt: line 2: is blank, and lines are counted here",
        ),
        (
            {"imagenet_2012_validation_synset_labels.txt": b"# synsets\nn01440764\n"},
            r"synset_labels.txt: line 1: '# synsets' begins with #",
        ),
        (
            {"ILSVRC2012_validation_ground_truth.txt": b"1\n\n1\n", "map_clsloc.txt": b"n01440764 1 a\n"},
            r"ground_truth.txt: line 2: is blank, and lines are counted here",
        ),
        (
            {"ILSVRC2012_validation_ground_truth.txt": b"1\n", "map_clsloc.txt": b"n01440764 1 a\nn02119789 1 b\n"},
            r"map_clsloc.txt: '1' is both n01440764 and n02119789; leave one out",
        ),
        (
            {"val.txt": b"a.JPEG 0\nval/a.JPEG n02119789\n"},
            r"val.txt: 'a' is both n01440764 and n02119789; leave one out",
        ),
    ],
)
def test_a_list_that_would_give_images_other_classes_in_silence_is_refused(
    put: Put, files: dict[str, bytes], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        imagenet_lists.synsets([put(name, data) for name, data in files.items()], sorted(SYNSETS), [].append)


def test_lists_of_the_names_of_images_are_no_lists_of_classes(build: Build, put: Put, picture: Encode) -> None:
    for synset, files in train_files(picture).items():
        for name, data in files.items():
            put(f"Data/CLS-LOC/train/{synset}/{name}", data)
    for name, data in validation_files(picture).items():
        put(f"Data/CLS-LOC/val/{name}", data)
    # As in the archive: each name with its place in the list.
    put("ImageSets/CLS-LOC/val.txt", b"ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n")
    with pytest.raises(ValueError, match="no list says what the validation images show"):
        build("imagenet")
    for name, data in LISTS["kaggle"]().items():
        put(name, data)
    check(build("imagenet", out="again"))


def test_no_training_image_is_refused(build: Build, put: Put) -> None:
    put("val/a.JPEG")
    with pytest.raises(ValueError, match=r"no image of a synset for training; expected ILSVRC2012_img_train.tar, or"):
        build("imagenet")


def test_a_tar_that_was_cut_within_a_tar_is_refused(build: Build, put: Put, picture: Encode) -> None:
    put("ILSVRC2012_img_train.tar", packed({"n01440764.tar": packed(train_files(picture)["n01440764"])[:700]}))
    with pytest.raises(ValueError, match=r"ILSVRC2012_img_train.tar/n01440764.tar: is cut inside member"):
        build("imagenet")
