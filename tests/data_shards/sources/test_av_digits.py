import io
import wave
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.sources import av_digits


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three images a digit for training, one for testing; recordings 3 to 6 of one speaker."""
    for digit in range(10):
        for split, count in [("train", 3), ("test", 1)]:
            folder = tmp_path / "images" / split / str(digit)
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((28, 28), digit, np.uint8)).save(folder / f"{split}{number}.png")
        (tmp_path / "sounds" / "recordings").mkdir(parents=True, exist_ok=True)
        for number in range(3, 7):
            file = io.BytesIO()
            with wave.open(file, "wb") as opened:
                opened.setparams((1, 2, 8000, 0, "NONE", ""))
                opened.writeframes(bytes([digit, 0, number, 0]))
            (tmp_path / "sounds" / "recordings" / f"{digit}_jo_{number}.wav").write_bytes(file.getvalue())
    return tmp_path / "images", tmp_path / "sounds"


def test_images_and_recordings_of_a_digit_are_paired_within_their_split(folders: tuple[Path, Path]) -> None:
    rows = av_digits.rows(*folders, seed=0)
    assert Counter((row.split, row.label) for row in rows) == {
        **{("train", digit): 3 for digit in range(10)},
        **{("test", digit): 1 for digit in range(10)},
    }
    used: dict[str, set[str]] = {"train": set(), "test": set()}
    for row in rows:
        sound, picture = row.members
        assert Path(sound.origin).name.startswith(f"{row.label}_")
        assert Path(picture.origin).parent.name == str(row.label)
        assert (int(sound.origin[-5]) < 5) == (row.split == "test")
        used[row.split] |= {sound.origin, picture.origin}
    assert not used["train"] & used["test"]
    assert len({row.members[1].origin for row in rows}) == len(rows), "every image once"


def test_recordings_are_used_in_turn(folders: tuple[Path, Path]) -> None:
    of_zero = [row for row in av_digits.rows(*folders, seed=0) if row.label == 0 and row.split == "train"]
    assert sorted(Counter(row.members[0].origin for row in of_zero).values()) == [1, 2]
    assert {row.members[0].origin for row in av_digits.rows(*folders, seed=0)} != {
        row.members[0].origin for row in of_zero
    }


def test_a_zip_gives_the_shards_of_its_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    archives = []
    for folder in folders:
        archive = tmp_path / f"{folder.name}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*.*"), reverse=True):
                file.write(path, path.relative_to(folder))
        archives.append(archive)
    unpacked = av_digits.build(tmp_path / "a", images=folders[0], recordings=folders[1])
    zipped = av_digits.build(tmp_path / "b", images=archives[0], recordings=archives[1])
    assert zipped == unpacked
    assert zipped.split("train").num_samples == 30
    assert zipped.split("train").shards.suffixes == {"wav": 30, "png": 30, "cls": 30}


def test_what_an_archive_lacks_is_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, recordings = folders
    for path in recordings.rglob("7_*_[012345].wav"):
        path.unlink()
    (recordings / "recordings" / "7_jo_6.wav").rename(recordings / "recordings" / "7_jo_2.wav")
    with pytest.raises(ValueError, match="no train recording of the digit 7"):
        av_digits.rows(images, recordings, seed=0)
    for path in (images / "test" / "4").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no image of the digit 4; expected test/4/NAME.png"):
        av_digits.rows(images, recordings, seed=0)
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        av_digits.rows(tmp_path / "gone.zip", recordings, seed=0)
