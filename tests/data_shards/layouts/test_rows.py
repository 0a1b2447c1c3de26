"""Every layout row by row, and all that it tells: what is a sample, of which class and split, and what is skipped."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.building.raw_sample import File, Literal, NamedFile, Row
from data_shards.modalities.decoding.flow import motion
from data_shards.modalities.encoding import flo
from data_shards.sources.layouts.audioset import AudioSet
from data_shards.sources.layouts.autoflow import AutoFlow
from data_shards.sources.layouts.c4 import C4
from data_shards.sources.layouts.flying_chairs import FlyingChairs
from data_shards.sources.layouts.glue import Glue
from data_shards.sources.layouts.imagenet import ImageNet
from data_shards.sources.layouts.kinetics import Kinetics
from data_shards.sources.layouts.kitti import Kitti
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.layouts.sintel import Masked, Sintel
from data_shards.sources.layouts.wikipedia import Wikipedia
from data_shards.sources.table import Table
from data_shards.sources.videos import Soundtrack


class Reader:
    """A folder with files, and what a layout reads of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []

    def put(self, *names: str, **texts: str) -> None:
        """Write files, empty or with a text."""
        for name, text in (dict.fromkeys(names, "") | texts).items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)

    def read(self, layout: TableLayout) -> Table:
        """Return the table, with what was told in its place."""
        self.told.clear()
        return layout.read(self.folder, self.told.append)

    def file(self, name: str) -> File:
        """The member of a file."""
        return File(str(self.folder / name))

    def named(self, name: str, member: str) -> NamedFile:
        """The member of a file that has a name of its own."""
        return NamedFile(str(self.folder / name), member)


@pytest.fixture
def raw(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "raw")


def pair(raw: Reader, first: str, second: str, motion: str) -> tuple[File, ...]:
    moved = raw.named(motion, "motion") if motion.endswith(".png") else raw.file(motion)
    return raw.named(first, "first"), raw.named(second, "second"), moved


STSB = "index\tsentence1\tsentence2\tscore\n"


def test_a_score_is_a_value_and_lines_without_one_are_counted(raw: Reader) -> None:
    raw.put(**{"STS-B/train.tsv": f"{STSB}0\tA\tB\t5\n\n1\tC\tD\t\n2\tE\tF\t\n3\tG\tH\t2.5\n4\tI\n"})
    table = raw.read(Glue())
    assert table == Table(
        [
            Row(0, (Literal(b"A\nB", "txt"),), fields={"first": "A", "second": "B"}, values={"stsb": (5.0,)}),
            Row(1, (Literal(b"G\nH", "txt"),), fields={"first": "G", "second": "H"}, values={"stsb": (2.5,)}),
        ],
        [],
    )
    assert raw.told == [
        "stsb: train 2 samples",
        "skipped, no sample in a line: 2 of stsb without a label, 1 of STS-B/train.tsv without all cells",
    ]
    raw.put(**{"STS-B/train.tsv": f"{STSB}0\tA\tB\t5\n1\tC\tD\thigh\n"})
    with pytest.raises(ValueError, match=r"train\.tsv: line 3: score 'high' is no number"):
        list(raw.read(Glue()).rows)


def test_a_task_alone_has_labels_and_several_have_named_ones(raw: Reader) -> None:
    raw.put(**{"CoLA/train.tsv": "g\t1\t\tA b.\ng\t0\t*\tB a.\ng\t?\t*\tB.\n", "CoLA/dev.tsv": "g\t1\t\tC.\n"})
    raw.put(**{"rte/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tnot_entailment\n"}, notes="")
    cola = [
        Row(0, (Literal(b"A b.", "txt"),), 1),
        Row(1, (Literal(b"B a.", "txt"),), 0),
        Row(2, (Literal(b"C.", "txt"),), 1, split="dev"),
    ]
    assert raw.read(Glue(task="cola")) == Table(cola, ["unacceptable", "acceptable"])
    assert raw.told == [
        "cola: train 2 samples",
        "cola: dev 1 sample",
        "skipped, no sample in a line: 1 of cola without a known label",
        f"{raw.folder}: skipped, no labelled file: 1 without a suffix, 1 .tsv",
    ]
    named = [
        Row(row.line, row.members, named_labels={"cola": row.label}, split=row.split)  # type: ignore[dict-item]
        for row in cola
    ]
    fields = {"first": "A", "second": "B"}
    named.append(Row(3, (Literal(b"A\nB", "txt"),), named_labels={"rte": 1}, fields=fields))
    classes = {"cola": ["unacceptable", "acceptable"], "rte": ["entailment", "not_entailment"]}
    assert raw.read(Glue()) == Table(named, [], classes)
    with pytest.raises(ValueError, match="--task 'snli' is none of cola, sst2"):
        raw.read(Glue(task="snli"))
    with pytest.raises(ValueError, match=r"no train\.tsv here or in a folder of a task .*; it has CoLA, notes, rte"):
        raw.read(Glue(task="qqp"))


def test_images_are_numbered_by_their_synsets_in_order(raw: Reader) -> None:
    first, second = "n01000000", "n02000000"
    raw.put(f"train/{second}/b.JPEG", f"train/{first}/a.JPEG", "train/loose.JPEG", "README.md", "val.txt")
    raw.put(f"train/{first}/.hidden.JPEG", f"train/{first}/a.txt", f"val/{second}/c.png", "val/n09000000/d.png")
    table = raw.read(ImageNet())
    assert table == Table(
        [
            Row(0, (raw.file(f"train/{first}/a.JPEG"),), 0),
            Row(1, (raw.file(f"train/{second}/b.JPEG"),), 1),
            Row(2, (raw.file(f"val/{second}/c.png"),), 1, split="val"),
        ],
        [first, second],
    )
    assert raw.told == [
        "2 classes; splits: train 2, val 1 image",
        f"{raw.folder}: skipped, no image of a class, or list of them: 1 for training in no folder of a synset, "
        "1 hidden, 1 .txt, 1 for validation of a class without training images, 1 .md",
    ]


@pytest.mark.parametrize("folder", ["test", ".trash", "Data", "ILSVRC", "train"])
def test_a_list_of_validation_images_is_not_looked_for_among_images(raw: Reader, folder: str) -> None:
    raw.put("train/n01440764/a.JPEG", "val/a.JPEG", **{f"{folder}/val.txt": "a.JPEG 0\n"})
    with pytest.raises(ValueError, match="no list says what the validation images show"):
        raw.read(ImageNet())
    raw.put(**{"lists/val.txt": "a.JPEG 0\n"})
    assert raw.read(ImageNet()).rows[1] == Row(1, (raw.file("val/a.JPEG"),), 0, split="val")


SEGMENTS = "# YTID, start_seconds, end_seconds, positive_labels\n"
CLASSES = "index,mid,display_name\n1,/m/b,Bell\n0,/m/a,Ant\n"


def audioset(raw: Reader, **texts: str) -> None:
    raw.put(
        **{
            "balanced_train_segments.csv": f'{SEGMENTS}aaaaaaaaaaa, 0, 10, "/m/b,/m/a"\nbbbbbbbbbbb, 0, 10, "/m/b"\n',
            "eval_segments.csv": f'{SEGMENTS}ccccccccccc, 0, 10, "/m/a"\n',
            "class_labels_indices.csv": CLASSES,
        }
        | texts
    )


def test_segments_have_the_classes_of_their_list_in_its_order(raw: Reader) -> None:
    audioset(raw)
    raw.put("wav/aaaaaaaaaaa.wav", "wav/ccccccccccc_0_10.wav", "mp4/aaaaaaaaaaa.mp4", "mp4/bbbbbbbbbbb.mp4")
    sound, clip = raw.file("wav/aaaaaaaaaaa.wav"), raw.file("mp4/aaaaaaaaaaa.mp4")
    other = raw.file("mp4/bbbbbbbbbbb.mp4")
    rows = [
        Row(0, (sound, clip), labels=(1, 0)),
        Row(1, (Soundtrack(other.path), other), labels=(1,)),
        Row(2, (raw.file("wav/ccccccccccc_0_10.wav"),), labels=(0,), split="test"),
    ]
    assert raw.read(AudioSet()) == Table(rows, ["Ant", "Bell"])
    assert raw.told == ["splits: test 1 segment, train 2 segments"]
    heard = [Row(row.line, row.members[:1], labels=row.labels, split=row.split) for row in rows]
    assert raw.read(AudioSet(video=False)).rows == heard
    seen = [Row(0, (clip,), labels=(1, 0)), Row(1, (other,), labels=(1,))]
    assert raw.read(AudioSet(audio=False)).rows == seen
    with pytest.raises(ValueError, match="--no-audio and --no-video leave nothing"):
        raw.read(AudioSet(audio=False, video=False))


def test_a_segment_that_two_lists_have_is_one_sample(raw: Reader) -> None:
    audioset(raw, **{"._eval_segments.csv": "\0"})
    raw.put(**{"copy/eval_segments.csv": (raw.folder / "eval_segments.csv").read_text()})
    raw.put(**{"more/balanced_train_segments.csv": f'{SEGMENTS}ccccccccccc, 0, 10, "/m/a"\n'})
    raw.put("aaaaaaaaaaa.wav", "ccccccccccc.wav")
    rows = raw.read(AudioSet()).rows
    assert [(row.labels, row.split) for row in rows] == [((1, 0), "train"), ((0,), "test"), ((0,), "train")]
    assert raw.told == [
        "splits: test 1 segment, train 2 segments",
        "skipped, no sample of the 5 segments: 1 listed before, 1 without a clip",
        f"1 clip in several samples, of other classes or splits: {raw.folder / 'ccccccccccc.wav'} in 2",
        f"{raw.folder}: skipped, no clip or list: 1 hidden",
    ]


def test_of_hidden_and_unlisted_clips_nothing_is_read(raw: Reader) -> None:
    audioset(raw, notes="")
    raw.put("aaaaaaaaaaa.wav", ".bbbbbbbbbbb.wav", ".trash/bbbbbbbbbbb.mp4", "ddddddddddd.wav", "ddddddddddd.mp4")
    assert raw.read(AudioSet()) == Table([Row(0, (raw.file("aaaaaaaaaaa.wav"),), labels=(1, 0))], ["Ant", "Bell"])
    assert raw.told == [
        "splits: train 1 segment",
        "skipped, no sample of the 3 segments: 2 without a clip",
        f"{raw.folder}: skipped, no clip or list: 2 hidden, 1 without a suffix",
        f"{raw.folder}: skipped, no clip of a segment in the lists: 1 .mp4, 1 .wav",
    ]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({"class_labels_indices.csv": f"{CLASSES}2,/m/c\n"}, "expected the columns index, mid, display_name"),
        ({"class_labels_indices.csv": f"{CLASSES}2,/m/c,C,more\n"}, "expected the columns index, mid, display_name"),
        ({"class_labels_indices.csv": CLASSES.replace("/m/b", "/m/x")}, "has no class '/m/b', which 'aaaaaaaaaaa' has"),
        ({"class_labels_indices.csv": ""}, "expected the columns index, mid, display_name|has no class"),
        ({"eval_segments.csv": "aaaaaaaaaaa, 0, 10\n"}, "'aaaaaaaaaaa,0,10': expected an id, start, end and labels"),
    ],
)
def test_lists_of_segments_that_cannot_be_are_refused(raw: Reader, texts: Mapping[str, str], sentence: str) -> None:
    audioset(raw, **texts)
    raw.put("aaaaaaaaaaa.wav")
    with pytest.raises(ValueError, match=sentence):
        raw.read(AudioSet())


LISTED = "label,youtube_id,time_start,time_end,split\n"


def test_clips_are_found_by_their_times_or_by_their_id(raw: Reader) -> None:
    raw.put("clips/aaaaaaaaaaa_000001_000011.mp4", "clips/aaaaaaaaaaa_000020_000030.mp4", "clips/bbbbbbbbbbb.mp4")
    raw.put("clips/.ccccccccccc.mp4", "clips/ddddddddddd_000000_000010.mp4", ".old/train.csv", "clips/eeeeeeeeeee.mp4")
    raw.put(**{"train.csv": f"{LISTED}zumba,aaaaaaaaaaa,20,30,train\nabc,aaaaaaaaaaa,1.5,11.5,train\n"})
    raw.put(**{"k_val.csv": "label,youtube_id\nzumba,bbbbbbbbbbb\nyoga,eeeeeeeeeee\nabc,ccccccccccc\n"})
    raw.put(**{"names.csv": "name\nx\n", "test.csv": "youtube_id\nddddddddddd\n"})
    late, early, whole = (raw.file(f"clips/{name}.mp4") for name in (
        "aaaaaaaaaaa_000020_000030", "aaaaaaaaaaa_000001_000011", "bbbbbbbbbbb",
    ))  # fmt: skip
    table = raw.read(Kinetics())
    assert table == Table(
        [
            Row(0, (whole, Soundtrack(whole.path)), 1, split="val"),
            Row(1, (late, Soundtrack(late.path)), 1),
            Row(2, (early, Soundtrack(early.path)), 0),
        ],
        ["abc", "zumba"],
    )
    assert raw.told == [
        "splits: train 2 clips, val 1 clip",
        "skipped, no sample of the 6 listed clips: 1 without a video, 1 without a label, 1 of a class without training "
        "clips",
        f"{raw.folder}: skipped, no video of a listed clip: 2 hidden, 1 .csv",
    ]
    assert [row.members for row in raw.read(Kinetics(audio=False)).rows] == [(whole,), (late,), (early,)]


def test_a_clip_cut_at_other_seconds_is_not_taken_for_one_that_is_gone(raw: Reader) -> None:
    raw.put("aaaaaaaaaaa_000000_000010.mp4", "bbbbbbbbbbb_1.5_11.5.mp4", "ccccccccccc_small.mp4")
    early = ("abc,aaaaaaaaaaa,0,10,train", "abc,bbbbbbbbbbb,1,11,train", "abc,ccccccccccc,2,12,train")
    late = ("abc,aaaaaaaaaaa,20,30,val", "zumba,bbbbbbbbbbb,1,12,train", "zumba,aaaaaaaaaaa,40,50,train")
    raw.put(**{"train.csv": LISTED + "\n".join((*early, *late))})
    names = ("aaaaaaaaaaa_000000_000010", "bbbbbbbbbbb_1.5_11.5", "ccccccccccc_small")
    table = raw.read(Kinetics(audio=False))
    assert [row.members for row in table.rows] == [(raw.file(f"{name}.mp4"),) for name in names]
    assert ([row.label for row in table.rows], table.label_names) == ([0, 0, 0], ["abc"])
    assert raw.told == ["splits: train 3 clips", "skipped, no sample of the 6 listed clips: 3 without a video"]


def test_seconds_that_are_no_numbers_leave_the_id(raw: Reader) -> None:
    raw.put("aaaaaaaaaaa.mp4", **{"train.csv": f"{LISTED}abc,aaaaaaaaaaa,inf,nan,train\n"})
    assert raw.read(Kinetics(audio=False)).rows == [Row(0, (raw.file("aaaaaaaaaaa.mp4"),), 0)]


def test_a_clip_that_two_lists_have_is_one_sample(raw: Reader) -> None:
    raw.put("aaaaaaaaaaa.mp4", "bbbbbbbbbbb.mp4")
    own = "abc,aaaaaaaaaaa,0,10,train\n"
    raw.put(**{"train.csv": LISTED + own, "all.csv": f"{LISTED}{own}abc,bbbbbbbbbbb,0,10,val\n"})
    raw.put(**{"more.csv": f"{LISTED}abc,bbbbbbbbbbb,0,10,train\n"})
    rows = raw.read(Kinetics(audio=False)).rows
    assert [(row.members[0].origin[-15:-4], row.split) for row in rows] == [
        ("aaaaaaaaaaa", "train"), ("bbbbbbbbbbb", "val"), ("bbbbbbbbbbb", "train"),
    ]  # fmt: skip
    assert raw.told == [
        "splits: train 2 clips, val 1 clip",
        "skipped, no sample of the 4 listed clips: 1 listed before",
        f"1 video in several samples, of other classes or splits: {raw.folder / 'bbbbbbbbbbb.mp4'} in 2",
    ]


def test_clips_of_one_split_alone_are_of_its_classes(raw: Reader) -> None:
    raw.put("bbbbbbbbbbb.mp4", **{"val.csv": f"{LISTED}zumba,bbbbbbbbbbb,7,17,validate\n"})
    file = raw.file("bbbbbbbbbbb.mp4")
    assert raw.read(Kinetics(audio=False)) == Table([Row(0, (file,), 0, split="val")], ["zumba"])
    assert raw.told == ["splits: val 1 clip"]


def test_pairs_of_flying_chairs_are_counted_by_their_names(raw: Reader) -> None:
    for number in ("00001", "00002"):
        raw.put(f"data/{number}_img1.ppm", f"data/{number}_img2.ppm", f"data/{number}_flow.flo")
    raw.put(**{"FlyingChairs_train_val.txt": "2 1"}, notes="")
    rows = [
        Row(line, pair(raw, *(f"data/0000{line}_{end}" for end in ("img1.ppm", "img2.ppm", "flow.flo"))), split=split)
        for line, split in ((1, "val"), (2, "train"))
    ]
    assert raw.read(FlyingChairs()) == Table(rows, [])
    assert raw.told == [
        "splits: train 1 pair, val 1 pair",
        f"{raw.folder}: skipped, no pair of FlyingChairs: 1 without a suffix",
    ]


def test_pairs_of_autoflow_are_the_whole_ones(raw: Reader) -> None:
    raw.put("b/im0.png", "b/im1.png", "b/forward.flo", "a/im0.png", "a/forward.flo", "c/im0.png", "c/im1.png")
    raw.put("d/im1.png", "d/forward.flo")
    assert raw.read(AutoFlow()) == Table([Row(1, pair(raw, "b/im0.png", "b/im1.png", "b/forward.flo"))], [])
    assert raw.told == [
        "2 motions without im0.png or im1.png: skipped",
        "1 pair",
        f"{raw.folder}: skipped, no pair of AutoFlow: 4 .png",
    ]
    raw.put("a/im1.png", "d/im0.png")
    assert [row.line for row in raw.read(AutoFlow()).rows] == [1, 2, 3]
    assert raw.told == ["3 pairs", f"{raw.folder}: skipped, no pair of AutoFlow: 2 .png"]


@pytest.mark.parametrize("root", ["", "training/"])
def test_pairs_of_sintel_are_those_of_both_passes(raw: Reader, root: str) -> None:
    for name in ("clean", "final"):
        raw.put(*(f"{root}{name}/alley/frame_{number:04d}.png" for number in (9, 10)))
    raw.put(f"{root}flow/alley/frame_0009.flo", f"{root}invalid/alley/frame_0009.png", f"{root}flow/README")
    flow = str(raw.folder / f"{root}flow/alley/frame_0009.flo")
    masked = Masked(flow, str(raw.folder / f"{root}invalid/alley/frame_0009.png"))
    assert (masked.origin, masked.extension) == (flow, "flo")
    members = {
        name: (*pair(raw, f"{root}{name}/alley/frame_0009.png", f"{root}{name}/alley/frame_0010.png", flow)[:2], masked)
        for name in ("clean", "final")
    }
    rows = [Row(1, members["clean"], split="clean"), Row(2, members["final"], split="final")]
    assert raw.read(Sintel()) == Table(rows, [])
    assert raw.told == [
        "1 pair in each of clean and final; 2 with a mask of invalid motion",
        f"{raw.folder}: skipped, no pair with motion: 1 without a suffix",
    ]
    assert [row.split for row in raw.read(Sintel(for_training=True)).rows] == ["train", "train"]
    raw.put(f"{root}flow/alley/frame_x.flo")
    with pytest.raises(ValueError, match=r"frame_x\.flo: expected frame_NUMBER\.flo"):
        raw.read(Sintel())


@pytest.mark.parametrize(("root", "frames"), [("training/", "colored_0"), ("", "image_2")])
def test_pairs_of_kitti_are_those_with_motion(raw: Reader, root: str, frames: str) -> None:
    raw.put(*(f"{root}{frames}/{number:06d}_{end}.png" for number in (0, 1) for end in (10, 11)))
    raw.put(
        f"{root}flow_occ/000001_10.png", f"{root}flow_occ/notes", f"{root}flow_noc/000000_10.png", f"{root}image_0/a"
    )
    for section, number, kind in ((Kitti(), 1, "flow_occ"), (Kitti(without_occluded=True), 0, "flow_noc")):
        names = f"{frames}/{number:06d}_10.png", f"{frames}/{number:06d}_11.png", f"{kind}/{number:06d}_10.png"
        assert raw.read(section) == Table([Row(1, pair(raw, *(f"{root}{name}" for name in names)))], [])
        assert raw.told == [
            f"1 pair of {frames} with the motion of {kind}",
            f"{raw.folder}: skipped, no pair with motion: 3 .png, 2 without a suffix",
        ]


def test_a_list_of_splits_that_is_no_text_is_refused(raw: Reader) -> None:
    raw.put("00001_flow.flo", "FlyingChairs_train_val.txt")
    (raw.folder / "FlyingChairs_train_val.txt").write_bytes(b"\xff\xfe1")
    with pytest.raises(ValueError, match=r"FlyingChairs_train_val\.txt: cannot be read \("):
        raw.read(FlyingChairs())


def test_a_mask_of_another_size_is_refused_and_all_its_channels_are_one(raw: Reader) -> None:
    (raw.folder).mkdir()
    flow, mask = raw.folder / "a.flo", raw.folder / "a.png"
    flow.write_bytes(flo(np.array([[[1, 2], [3, 4]]])))
    Image.fromarray(np.array([[[0, 9, 9], [1, 0, 0]]], np.uint8)).save(mask)
    masked = Masked(str(flow), str(mask))
    assert masked.num_bytes == 28
    np.testing.assert_array_equal(motion(masked.read()), [[[1, 2], [np.nan, np.nan]]])
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(mask)
    with pytest.raises(ValueError, match=r"a\.png has \(2, 2\) pixels, the motion \(1, 2\)"):
        masked.read()


def test_texts_are_cut_as_long_as_the_section_says(raw: Reader, tmp_path: Path) -> None:
    raw.put(**{"c4/c4-train.json": '{"text": "abcdefg"}\n', "c4/c4-val.json": '{"text": "a"}\n', "c4/.b.json": ""})
    raw.put(**{"wiki/AA/wiki_00": '{"text": "abcdefg"}\n', "wiki/notes": ""})
    told: list[str] = []
    built = C4(num_bytes=4).build(raw.folder / "c4", tmp_path / "c4", tell=told.append)
    assert {name: split.num_samples for name, split in built.splits.items()} == {"train": 2, "val": 1}
    built = Wikipedia(num_bytes=4).build(raw.folder / "wiki", tmp_path / "wiki", tell=told.append)
    assert built.split("train").num_samples == 2
    assert [sentence for sentence in told if "file" in sentence] == [
        "splits: train 1 file, val 1 file",
        f"{raw.folder}/c4: skipped, no file of JSON lines: 1 hidden",
        "1 file",
        f"{raw.folder}/wiki: skipped, no file wiki_NUMBER: 1 without a suffix",
    ]
