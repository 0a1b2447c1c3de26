"""ImageNet (ILSVRC2012): as two tars, as folders of synsets, and with the validation images in one flat folder."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Content, File, Row
from data_shards.building.splits import TRAIN
from data_shards.files.quoting import counted, shown
from data_shards.modalities.kinds.catalogue import usual_suffixes
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing import imagenet_lists, tar_files
from data_shards.sources.parsing.folder_files import HIDDEN, is_hidden, passed_over, paths_below, suffix_of
from data_shards.sources.parsing.imagenet_lists import SYNSET
from data_shards.sources.table import Table

VAL = "val"
TARS = {TRAIN: "ILSVRC2012_img_train.tar", VAL: "ILSVRC2012_img_val.tar"}
Image = tuple[tuple[str, ...], Content]
"""The names that lead to an image below its split, and the image."""


@dataclass(frozen=True)
class ImageNet(TableLayout):
    """ImageNet: ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or train/ and val/ in FOLDER.

    train/ holds n01440764/*.JPEG or n01440764.tar. val/ does too, or holds ILSVRC2012_val_00000001.JPEG and so on; then
    their classes come from the development kit (ILSVRC2012_validation_ground_truth.txt and meta.mat, or its tar.gz),
    LOC_val_solution.csv, or val.txt with a name and a class in each line. The tars are not unpacked.

    Example: perceiver data build imagenet ILSVRC2012 data/imagenet
    """

    name: ClassVar[str] = "imagenet"

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each image; classes are the synsets in their order, which numbers them 0 to 999."""
        for split, name in TARS.items():
            if (tar := _place(folder, name)) and (other := _place(folder, split)):
                tell(f"{tar} is read, and {other}, which is there too, is not")
        passed: Counter[str] = Counter()
        train: list[tuple[str, Content]] = []
        for names, content in _images(folder, TRAIN, passed):
            if SYNSET.fullmatch(names[0]):
                train.append((names[0], content))
            else:
                passed["for training in no folder of a synset"] += 1
        if not train:
            raise ValueError(
                f"{folder}: no image of a synset for training; expected {TARS[TRAIN]}, or train/n01440764/*.JPEG"
            )
        # As everybody numbers them, so that weights of others answer in the same order.
        classes = sorted({synset for synset, _ in train})
        numbers = {synset: number for number, synset in enumerate(classes)}
        rows = [Row(line, (content,), numbers[synset]) for line, (synset, content) in enumerate(train)]
        for synset, content in _validation(folder, classes, passed, tell):
            if synset in numbers:
                rows.append(Row(len(rows), (content,), numbers[synset], split=VAL))
            else:
                passed["for validation of a class without training images"] += 1
        images = counted(len(rows) - len(train), "image")
        tell(f"{counted(len(classes), 'class')}; splits: train {len(train)}, val {images}")
        passed.update(suffix_of(path.name) for path in _others(folder))
        if passed:
            tell(f"{folder}: {passed_over(passed, 'image of a class, or list of them')}")
        return Table(rows, classes)


def _images(folder: Path, split: str, passed: Counter[str]) -> Iterator[Image]:
    """Yield the images of a split in the order of their names, from its tar or its folder."""
    tar, place = _place(folder, TARS[split]), _place(folder, split)
    if tar:
        # By name: the order in a tar is that of a disk long ago.
        files: Iterator[Image] = (_tarred(each) for each in sorted(tar_files.files(tar), key=lambda each: each.name))
    elif place:
        files = _below(place)
    else:
        return
    for names, content in files:
        if is_hidden(names):
            passed[HIDDEN] += 1
        elif content.extension in usual_suffixes("image"):
            yield names, content
        else:
            passed[suffix_of(names[-1])] += 1


def _place(folder: Path, name: str) -> Path | None:
    """Return the file or folder of that name: in the folder, or where Kaggle's archive has it."""
    places = (folder / name, folder / "ILSVRC" / "Data" / "CLS-LOC" / name, folder / "Data" / "CLS-LOC" / name)
    return next((place for place in places if place.exists()), None)


def _below(place: Path) -> Iterator[Image]:
    for path in paths_below(place):
        if path.suffix == ".tar" and SYNSET.fullmatch(path.stem):
            # As an unpacking leaves them that was interrupted: each image would be two samples.
            if path.with_suffix("").is_dir():
                raise ValueError(f"{path}: is unpacked beside it, in {path.stem}/; remove the one that is not complete")
            yield from (_tarred(each, path.stem) for each in tar_files.files(path))
        else:
            yield path.relative_to(place).parts, File(str(path))


def _tarred(file: tar_files.Tarred, synset: str = "") -> Image:
    # The training tar holds a tar for each synset, which is not unpacked either.
    names = [part.removesuffix(".tar") if SYNSET.match(part) else part for part in PurePosixPath(file.name).parts]
    return (*([synset] if synset else []), *names), file


def _validation(
    folder: Path, classes: Sequence[str], passed: Counter[str], tell: Tell
) -> Iterator[tuple[str, Content]]:
    """Yield (synset, image) of the validation split."""
    synset_of: imagenet_lists.Answers | None = None
    for names, content in _images(folder, VAL, passed):
        if SYNSET.fullmatch(names[0]):
            yield names[0], content
            continue
        # Only now: with folders of synsets there need be no list.
        if synset_of is None:
            try:
                synset_of = imagenet_lists.synsets(_lists(folder), classes, tell)
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from error
        synset = synset_of(names[-1])
        if synset is None:
            raise ValueError(f"{folder}: the list of validation images has no {shown(names[-1])}")
        yield synset, content


def _others(folder: Path) -> Iterator[Path]:
    """Yield the files of the folder that are neither images nor lists, such as the test images."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in TARS.values() and not imagenet_lists.is_list(path.name):
            yield path


def _lists(folder: Path) -> Iterator[Path]:
    """Yield files that may be a list: not below the splits, which have a million files."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path
        # ImageSets has lists of the names of images, with their place in the list.
        elif path.name not in (TRAIN, VAL, "test", "Data", "ILSVRC", "ImageSets", "Annotations") and not is_hidden(
            (path.name,)
        ):
            yield from paths_below(path)
