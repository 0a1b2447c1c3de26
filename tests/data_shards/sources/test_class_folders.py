"""What folders say of split and class, what is skipped, and what is refused."""

import io
from pathlib import Path

import pytest
from PIL import Image

from data_shards.sources import audio_folder, av_digits, class_folders, image_folder, point_clouds, text, videos
from data_shards.sources.parsing.folder_files import walk


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def found(folder: Path, told: list[str] | None = None) -> set[tuple[str, str, str]]:
    """(split, class, file) of every image."""
    files, names = class_folders.find(folder, "image", None if told is None else told.append)
    return {(file.split, names[file.label], Path(file.path).name) for file in files}


@pytest.mark.parametrize(
    ("written", "split"),
    [
        *((name, name) for name in ("train", "val", "valid", "validation", "dev", "test", "eval")),
        *((name, name.lower()) for name in ("Train", "TEST", "Val", "Validation", "DEV")),
        ("Training", "train"),
        ("Testing", "test"),
    ],
)
def test_a_split_is_known_in_any_case_above_and_below_the_class(tmp_path: Path, written: str, split: str) -> None:
    touch(tmp_path / "above", "train/cat/0.png", f"{written}/cat/1.png")
    touch(tmp_path / "below", "cat/train/0.png", f"cat/{written}/1.png")
    for folder in ("above", "below"):
        told: list[str] = []
        assert found(tmp_path / folder, told) == {("train", "cat", "0.png"), (split, "cat", "1.png")}
        assert f"{split} " in told[-1]
        assert f"in {written}" in told[-1]


def test_a_folder_without_a_split_is_said_to_have_none(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png", "dog/0.png")
    told: list[str] = []
    found(tmp_path, told)
    assert told == ["no folder of a split: all 2 files are for training"]


def test_a_train_may_be_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.png", "bus/0.png")
    assert {place[:2] for place in found(tmp_path)} == {("train", "train"), ("train", "bus")}


@pytest.mark.parametrize("name", ["Test", "val", "dev"])
def test_files_of_a_split_without_classes_do_not_become_a_class(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "cat/0.png", "dog/0.png", f"{name}/0.png")
    with pytest.raises(ValueError, match=f": {name} would be a split, but has no folders of classes in it; sort"):
        found(tmp_path)


def test_splits_beside_folders_that_are_no_classes_of_theirs_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/red/0.png", "bus/red/0.png", "car/0.png")
    with pytest.raises(ValueError, match="train would be splits, but bus, car beside them are no classes of theirs"):
        found(tmp_path)


def test_classes_beside_a_split_of_them_are_for_training(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png", "dog/0.png", "Test/cat/1.png", "Test/dog/1.png")
    assert found(tmp_path) == {
        ("train", "cat", "0.png"),
        ("train", "dog", "0.png"),
        ("test", "cat", "1.png"),
        ("test", "dog", "1.png"),
    }


def test_files_in_a_split_but_in_no_class_are_passed_over_and_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/0.png", "train/loose.png", "test/1.png", "test/2.png", "top.png")
    told: list[str] = []
    assert found(tmp_path, told) == {("train", "cat", "0.png")}
    assert told[0].endswith("4 in no folder of a class")
    touch(tmp_path / "flat", "train/0.png", "test/1.png")
    with pytest.raises(ValueError, match=r"no image file \(.*\) in a folder of its class; .*2 in no folder of a class"):
        found(tmp_path / "flat")


def test_what_is_passed_over_is_counted_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png", "cat/1.GIF", "cat/2.gif", "dog/0.jpg", "dog/notes", "dog/.DS_Store", ".git/a/b.png")
    touch(tmp_path, "cat/a.thumbnail of an unusual kind", "__MACOSX/cat/._0.png", "cat/.ipynb_checkpoints/0.png")
    told: list[str] = []
    assert len(found(tmp_path, told)) == 2
    assert told[0].startswith("skipped, no image file (png, jpg")
    for part in ("2 .gif", "4 hidden", "1 without a suffix", "1 of an odd suffix"):
        assert part in told[0]


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["cats/0.png", "dogs/0.gif"], "dogs"),
        (["cats/0.png", "dogs/deep/er/0.gif"], "dogs"),
        (["cats/0.png", "dogs/.hidden.png"], "dogs"),
        (["train/cats/0.png", "train/dogs/0.png", "test/cats/0.png", "test/dogs/0.gif"], "test/dogs"),
        (["train/cats/0.png", "Test/cats/0.gif"], "Test"),
        (["cats/train/0.png", "cats/test/0.heic"], "cats/test"),
        (["cats/train/0.png", "dogs/train/0.heic"], "dogs"),
    ],
)
def test_a_class_folder_in_which_nothing_can_be_read_is_refused(tmp_path: Path, names: list[str], folder: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=rf"no image file \(png, .*\) in {folder}; convert .*skipped"):
        found(tmp_path)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cats/0.png")
    (tmp_path / "dogs").mkdir()
    with pytest.raises(ValueError, match=r"no image file \(.*\) in dogs; convert"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("build", "good", "bad"),
    [
        (image_folder.build, "png", "gif"),
        (audio_folder.build, "wav", "m4a"),
        (videos.build, "mp4", "gif"),
        (point_clouds.build, "off", "obj"),
    ],
)
def test_no_class_of_any_source_vanishes(tmp_path: Path, build, good: str, bad: str) -> None:  # noqa: ANN001 - any
    touch(tmp_path, f"cats/0.{good}", f"dogs/0.{bad}", f"dogs/1.{bad}")
    with pytest.raises(ValueError, match=rf"in dogs; convert the files there, .*2 \.{bad}"):
        build(tmp_path, tmp_path.with_name("out"))


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    touch(tmp_path / "store", "a/0.png", "deep/b/1.png")
    (tmp_path / "in").mkdir()
    for name, target in [("cat", "a"), ("dog", "deep")]:
        (tmp_path / "in" / name).symlink_to(tmp_path / "store" / target)
    assert found(tmp_path / "in") == {("train", "cat", "0.png"), ("train", "dog", "1.png")}


@pytest.mark.parametrize("target", [".", "..", "../../dog", "../dog"])
def test_a_link_to_a_folder_that_it_lies_in_is_refused(tmp_path: Path, target: str) -> None:
    touch(tmp_path, "cat/0.png", "dog/1.png")
    (tmp_path / "cat" / "link").symlink_to(target)
    (tmp_path / "dog" / "link").symlink_to("../cat")
    if target == "../../dog":  # leads nowhere: a file that is no image
        assert len(found(tmp_path)) == 3
    else:
        with pytest.raises(ValueError, match="link: is a link to a folder that it lies in; remove it"):
            found(tmp_path)


def test_classes_that_are_numbers_are_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}/0.png" for number in range(12)))
    assert class_folders.find(tmp_path, "image")[1] == [str(number) for number in range(12)]
    touch(tmp_path, "a/0.png")
    assert class_folders.find(tmp_path, "image")[1][:4] == ["0", "1", "10", "11"]


@pytest.mark.parametrize("name", ["a\u00a0b", "a\u202fb", "a\u3000b", "👩\u200d🚀", "a\u2028b", "zwölf", "a\tb"])
def test_a_class_of_any_name_of_text_is_built(tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / name).mkdir(parents=True)
    (tmp_path / "in" / name / "0.png").write_bytes(png())
    assert image_folder.build(tmp_path / "in", tmp_path / "out").label_names == (name,)


def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a\udcff/0.png")
    with pytest.raises(ValueError, match=r"the folder 'a\\udcff' has a name that is not UTF-8; rename it"):
        found(tmp_path)


def test_other_sources_tell_what_they_pass_over(tmp_path: Path) -> None:
    told: list[str] = []
    touch(tmp_path / "text", "b.md", "c.txt.html", ".a.txt")
    (tmp_path / "text" / "a.txt").write_text("a")
    text.build({"train": tmp_path / "text"}, tmp_path / "out", tell=told.append)
    assert told == [f"{tmp_path}/text: skipped, no text (.txt, .jsonl, .ndjson, .json): 1 hidden, 1 .md, 1 .html"]
    told.clear()
    touch(tmp_path / "audio", "x.wav", "y.m4a")
    (tmp_path / "list.csv").write_text('x, 0, 10, "a"\n')
    audio_folder.read_segments(tmp_path / "audio", {"train": tmp_path / "list.csv"}, None, told.append)
    assert told == [f"{tmp_path}/audio: skipped, no audio file (wav, flac, mp3, ogg): 1 .m4a"]
    told.clear()
    for digit in range(10):
        touch(tmp_path / "images", f"train/{digit}/0.png", f"test/{digit}/0.png", f"test/{digit}/0.jpg")
        touch(tmp_path / "sounds", f"{digit}_jo_0.wav", f"{digit}_jo_7.wav", f"{digit}_Jo_7.wav")
    av_digits.rows(tmp_path / "images", tmp_path / "sounds", seed=0, tell=told.append)
    assert [sentence.rpartition(": ")[2] for sentence in told] == ["10 .jpg", "10 .wav"]


def test_a_folder_that_cannot_be_read_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png")
    (tmp_path / "dog").mkdir()
    walked = walk(tmp_path)
    next(walked)
    (tmp_path / "dog").rmdir()
    with pytest.raises(ValueError, match=r"dog: cannot be read \(No such file or directory\)"):
        list(walked)


def test_splits_are_told_in_the_order_of_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/cat/{n}.png" for n in range(3)), "test/cat/0.png", "Val/cat/0.png", "Val/cat/1.png")
    told: list[str] = []
    found(tmp_path, told)
    assert told == ["splits: val 2 files in Val, test 1 file in test, train 3 files in train"]


def test_kinds_beyond_the_first_ten_are_counted_together(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png", *(f"cat/{n:02d}.k{n:02d}" for n in range(13)), "cat/x.k00")
    told: list[str] = []
    found(tmp_path, told)
    assert told[0].endswith(": 2 .k00, " + ", ".join(f"1 .k{n:02d}" for n in range(1, 10)) + ", 3 of 3 more kinds")


@pytest.mark.parametrize(
    ("train", "other", "sentence"),
    [
        ("train2017", "val2017", "train2017, val2017 look like .*; rename 'train2017' to train, 'val2017' to val, or"),
        (
            "train_set",
            "test_set",
            "test_set, train_set look like .*; rename 'test_set' to test, 'train_set' to train, ",
        ),
        (
            "Training images",
            "test",
            "Training images, test look like splits, .*; rename 'Training images' to training, or",
        ),
        (
            "train",
            "Val-1",
            "Val-1, train look like splits, .*; rename 'Val-1' to val, or move them into a folder of each",
        ),
    ],
)
def test_folders_that_are_nearly_named_as_splits_are_no_classes(
    tmp_path: Path, train: str, other: str, sentence: str
) -> None:
    touch(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{other}/a/3.png", f"{other}/b/4.png")
    with pytest.raises(ValueError, match=sentence):
        found(tmp_path)


def test_classes_that_begin_as_splits_do_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "test_tube/1.png", "train_station/2.png", "valley/inner/3.png", "train_set/inner/4.png")
    assert {name for _, name, _ in found(tmp_path)} == {"test_tube", "train_station", "valley", "train_set"}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["cat/a/0.png", "cat/1.png"],
            "there is one class alone, and 1 file lies deeper than the folder of their class: cat/a/0.png is of class "
            "cat; where that is not meant, name a folder further down",
        ),
        (
            ["cat/0.png", "dog/a/0.png", "dog/a/b/1.png"],
            "2 files lie deeper than the folder of their class: dog/a/0.png is of class dog; where that is not meant, "
            "name a folder further down",
        ),
        (
            ["train/cat/0.png", "train/dog/a/0.png"],
            "1 file lies deeper than the folder of their class: train/dog/a/0.png is of class dog; where that is not "
            "meant, name a folder further down",
        ),
        (
            ["Cat/0.png", "cat/0.png"],
            "the classes 'Cat' and 'cat' look alike; write them in one way if they are one class",
        ),
    ],
)
def test_what_may_not_be_meant_is_told(tmp_path: Path, names: list[str], sentence: str) -> None:
    touch(tmp_path, *names)
    told: list[str] = []
    found(tmp_path, told)
    assert told[0] == sentence
    assert len(told) == 2


@pytest.mark.parametrize("names", [["cat/0.png", "train/cat/1.png"], ["train/cat/0.png"]])
def test_folders_that_lie_where_no_class_is_meant_may_be_empty(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names, "loose.png")
    # Within a class, and within a class of a split.
    for name in names:
        (tmp_path / name).with_name("notes").mkdir()
    if not names[0].startswith("cat"):
        (tmp_path / "notes").mkdir()
    assert len(found(tmp_path)) == len(names)


def test_an_empty_class_beside_a_split_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png", "Test/cat/1.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"no image file \(.*\) in dog; convert"):
        found(tmp_path)


def test_what_stands_beside_a_split_is_told_last(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png", "cat/1.png", "Test/cat/1.png")
    told: list[str] = []
    found(tmp_path, told)
    assert told == ["splits: train 2 files elsewhere, test 1 file in Test"]


def test_folders_are_named_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png", *(f"{name}/0.png" for name in ("val", "Test", "eval", "dev", "valid", "validation")))
    with pytest.raises(ValueError, match=": Test, dev, eval, val, valid, validation would be a split, but has no"):
        found(tmp_path)
    others = [f"{name}/red/0.png" for name in ("f", "b", "d", "a", "c", "e")]
    touch(tmp_path / "other", "train/red/0.png", *others)
    with pytest.raises(ValueError, match="train would be splits, but a, b, c, d, e, f beside them are no classes"):
        found(tmp_path / "other")
