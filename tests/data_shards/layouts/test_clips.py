"""AudioSet and Kinetics: which clip belongs to which line of a list, and what becomes of lines without one."""

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

Build = Callable[..., Any]
Built = Any
Put = Callable[..., Path]


@pytest.fixture(scope="module")
def sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        written.writeframes(np.arange(800, dtype="<i2").tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def clip() -> bytes:
    """A clip of 16 x 16 pixels with sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.height = pictures.width = 16
        pictures.pix_fmt = "yuv420p"
        heard = container.add_stream("aac", rate=16_000, layout="mono")
        for _ in range(3):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(heard.encode(frame))
        for stream in (pictures, heard):
            container.mux(stream.encode(None))
    return file.getvalue()


HEAD = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=4, num_segs=4, num_unique_labels=3, num_positive_labels=5
# YTID, start_seconds, end_seconds, positive_labels
"""
BALANCED = f'{HEAD}--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\nYabcdefghij, 0.000, 10.000, "/m/09x0r"\n'
UNBALANCED = f'{HEAD}lost_lost_l, 0.000, 10.000, "/m/09x0r"\n-0RWZT-miFs, 420.000, 430.000, "/t/dd00088"\n'
EVALUATION = f'{HEAD}-0SdAVK79lg, 30.000, 40.000, "/m/04rlf,/m/09x0r"\nonly_other_, 0.000, 10.000, "/m/04rlf"\n'
CLASSES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush"\n2,/m/04rlf,"Music, of any kind"\n'


@pytest.fixture
def audioset(put: Put, sound: bytes, clip: bytes) -> None:
    put("balanced_train_segments.csv", BALANCED.encode())
    put("unbalanced_train_segments.csv", UNBALANCED.encode())
    put("eval_segments.csv", EVALUATION.encode())
    put("class_labels_indices.csv", CLASSES.encode())
    for name in ("--PJHxphWEs_30.000", "YYabcdefghij", "-0SdAVK79lg_30000_40000", "only_other_", "of_no_list_"):
        put(f"audio/{name}.wav", sound)
    for name in ("--PJHxphWEs", "-0RWZT-miFs", "-0SdAVK79lg_30.000"):
        put(f"video/{name}.mp4", clip)
    put("ontology.json", b"{}")


def kinds(built: Built, split: str = "train") -> list[str]:
    return [" ".join(sorted(sample)) for sample in built.samples(split)]


def several(built: Built, split: str = "train") -> list[list[str]]:
    names = built.manifest.label_names
    return [[names[label] for label in json.loads(sample["json"])["labels"]] for sample in built.samples(split)]


@pytest.mark.usefixtures("audioset")
def test_audiosets_sound_and_pictures_of_an_id_are_one_sample(build: Build, sound: bytes) -> None:
    built = build("audioset")
    assert built.counts == {"train": 3, "test": 1}
    # The last one's sound is that of its video.
    assert kinds(built) == ["json mp4 wav", "json wav", "json mp4 wav"]
    assert several(built) == [["Speech", "Gush"], ["Speech"], ["Gush"]]
    assert built.samples()[0]["wav"] == sound
    assert built.samples()[2]["wav"] != sound
    assert several(built, "test") == [["Speech"]]
    for sentence in (
        "1 of 3 classes have no training clip and are left out",
        "splits: test 1 segment, train 3 segments",
        "skipped, no sample of the 6 segments: 1 without a clip, 1 of classes without training clips",
        "skipped, no clip or list: 1 .json",
        "skipped, no clip of a segment in the lists: 1 .wav",
    ):
        assert sentence in built.told


@pytest.mark.usefixtures("audioset")
def test_audiosets_sound_or_pictures_can_be_left_out(build: Build) -> None:
    assert kinds(build("audioset", "--no-video")) == ["json wav", "json wav", "json wav"]


@pytest.mark.usefixtures("audioset")
def test_of_audiosets_pictures_alone_segments_without_any_are_counted(build: Build) -> None:
    built = build("audioset", "--no-audio")
    assert kinds(built) == ["json mp4", "json mp4"]
    assert "3 without a clip" in built.told


@pytest.mark.usefixtures("audioset")
def test_two_classes_of_audioset_with_one_name_stay_two(build: Build, put: Put) -> None:
    put("class_labels_indices.csv", CLASSES.replace("Gush", "Speech").encode())
    built = build("audioset")
    assert built.manifest.label_names == ("Speech (/m/09x0r)", "Speech (/t/dd00088)")


@pytest.mark.usefixtures("audioset")
@pytest.mark.parametrize("line", ['3,/m/09x0r,"Speaking"', '0,/m/0other,"Other"'])
def test_a_class_of_audioset_that_is_listed_twice_is_refused(build: Build, put: Put, line: str) -> None:
    put("class_labels_indices.csv", f"{CLASSES}{line}\n".encode())
    with pytest.raises(ValueError, match=r"class_labels_indices\.csv: .* is there twice; leave one out"):
        build("audioset")


@pytest.mark.usefixtures("audioset")
@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        (["class_labels_indices.csv"], "no class_labels_indices.csv, which names and numbers the classes"),
        (["eval_segments.csv", "balanced_train_segments.csv", "unbalanced_train_segments.csv"], "no list of segments"),
        (["audio", "video"], "no clip of the 6 segments in its lists; name clips YTID_START.wav"),
    ],
)
def test_a_missing_piece_of_audioset_is_refused(build: Build, tmp_path: Path, gone: list[str], sentence: str) -> None:
    for name in gone:
        (tmp_path / "raw" / name).rename(tmp_path / name)
    with pytest.raises(ValueError, match=sentence):
        build("audioset")


@pytest.mark.usefixtures("audioset")
def test_two_lists_of_audiosets_classes_are_alike_or_refused(build: Build, put: Put) -> None:
    put("lists/class_labels_indices.csv", CLASSES.replace("\n", "\r\n").encode())
    # Of a hidden one another system made the name.
    put("__MACOSX/class_labels_indices.csv", b"no list")
    assert build("audioset").counts == {"train": 3, "test": 1}
    speech, gush = "0,/m/09x0r", "1,/t/dd00088"
    put("lists/class_labels_indices.csv", CLASSES.replace(speech, "1,/m/09x0r").replace(gush, "0,/t/dd00088").encode())
    with pytest.raises(ValueError, match=r"indices\.csv and .*lists/class_labels.* otherwise; remove one of them"):
        build("audioset", out="again")


@pytest.mark.usefixtures("audioset")
def test_a_column_of_audiosets_classes_that_is_there_twice_is_refused(build: Build, put: Put) -> None:
    put("class_labels_indices.csv", CLASSES.replace("\n", ",,\n").encode())
    assert build("audioset").counts == {"train": 3, "test": 1}
    put("class_labels_indices.csv", b"index,mid,mid,display_name\n0,/m/09x0r,/m/04rlf,Speech\n")
    with pytest.raises(ValueError, match="column 'mid' is there twice; leave one out"):
        build("audioset", out="again")


LISTED = "label,youtube_id,time_start,time_end,split\n"


@pytest.fixture
def kinetics(put: Put, clip: bytes) -> None:
    put(
        "annotations/train.csv", f"{LISTED}abseiling,__NrybzYzUg,415,425,train\nzumba,aaaaaaaaaaa,0,10,train\n".encode()
    )
    put(
        "annotations/val.csv",
        f"{LISTED}zumba,bbbbbbbbbbb,7,17,validate\nzumba,ccccccccccc,1,11,validate\nyoga,ddddddddddd,1,11,val\n".encode(),
    )
    put("annotations/test.csv", b"youtube_id,time_start,time_end,split\neeeeeeeeeee,0,10,test\n")
    put("train/abseiling/__NrybzYzUg_000415_000425.mp4", clip)
    for name in (
        "train/aaaaaaaaaaa_000000_000010.mp4",
        "val/zumba/bbbbbbbbbbb_000007_000017.mp4",
        "val/ddddddddddd.mp4",
        "test/eeeeeeeeeee_000000_000010.mp4",
        "val/zumba/of_no_list_000000_000010.mp4",
    ):
        put(name, clip)


@pytest.mark.usefixtures("kinetics")
def test_kinetics_lists_give_class_and_split(build: Build) -> None:
    built = build("kinetics")
    assert built.manifest.label_names == ("abseiling", "zumba")
    assert built.counts == {"train": 2, "val": 1}
    assert (built.labels(), built.labels("val")) == (["abseiling", "zumba"], ["zumba"])
    assert kinds(built) == ["cls mp4 wav", "cls mp4 wav"]
    for sentence in (
        "splits: train 2 clips, val 1 clip",
        "1 without a label",
        "1 without a video",
        "1 of a class without training clips",
        "skipped, no video of a listed clip: 1 .mp4",
    ):
        assert sentence in built.told


@pytest.mark.usefixtures("kinetics")
def test_kinetics_without_sound(build: Build) -> None:
    assert kinds(build("kinetics", "--no-audio")) == ["cls mp4", "cls mp4"]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.csv": b"name\nx\n"}, "no .csv list with youtube_id, time_start, time_end, split; add Kinetics' train.csv"),
        (
            {"train.csv": f"{LISTED}zumba,aaaaaaaaaaa,0,10,train\n".encode()},
            "no video of the 1 listed clip; name videos",
        ),
        ({"train.csv": f"{LISTED}zumba,aaaaaaaaaaa,0,10,holdout\n".encode()}, "line 2: split 'holdout' is none of"),
    ],
)
def test_a_missing_piece_of_kinetics_is_refused(build: Build, put: Put, files: dict[str, bytes], sentence: str) -> None:
    for name, data in files.items():
        put(name, data)
    with pytest.raises(ValueError, match=sentence):
        build("kinetics")
