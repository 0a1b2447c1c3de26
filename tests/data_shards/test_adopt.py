"""Adopting and verifying: plain tars become a shard folder, and what is bad in one is listed."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data_shards.building import adoption
from data_shards.building.builder import build_table
from data_shards.building.inspection import verification
from data_shards.building.inspection.verification import Bad
from data_shards.building.raw_sample import Literal, Row
from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.format.annotations import OWN, Records
from data_shards.format.manifest import Manifest
from data_shards.format.tar_index import TarIndex
from data_shards.loading import streams
from data_shards.modalities.kinds.text import TextConfig
from data_shards.sources.table import build
from data_shards.storage.local_folder import LocalFolder

TextShards = Callable[..., Manifest]
WriteTar = Callable[..., Path]


def test_folders_of_tars_become_splits(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path, [3, 4], "train")
    adopted = text_shards(tmp_path, [2], "test")
    assert manifest.read(tmp_path) == adopted
    assert {name: [shard.num_samples for shard in split.shards] for name, split in adopted.splits.items()} == {
        "test": [2],
        "train": [3, 4],
    }
    assert adopted.split("train").label_counts == (2, 3, 2)
    assert adopted.split("train").shards[1].kinds == {"cls/txt": 4}


def test_a_split_is_the_same_in_capitals(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path, [3], "Train")
    adopted = text_shards(tmp_path, [2], "TEST")
    assert {name: split.num_samples for name, split in adopted.splits.items()} == {"test": 2, "train": 3}


def test_tars_in_the_folder_itself_are_the_train_split(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "laion-000.tar", [("a.txt", b"x"), ("a.json", b"{}")])
    before = (tmp_path / "laion-000.tar").read_bytes()
    split = adoption.index(tmp_path).split("train")
    assert [shard.name for shard in split.shards] == ["laion-000.tar"]
    assert split.label_counts == ()
    assert (tmp_path / "laion-000.tar").read_bytes() == before


def test_bad_tars_are_named_and_no_manifest_is_written(tmp_path: Path, write_tar: WriteTar) -> None:
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", [("a.txt", b"x"), ("a.cls", b"0" if name == "a" else b"cat")])
    with pytest.raises(ValueError, match=r"b\.tar: a: \.cls: label is not a number .*'cat'; none .*; 1 more of the 3"):
        adoption.index(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    (tmp_path / "c.tar").unlink()
    with pytest.raises(ValueError, match=r"b\.tar: a: ") as caught:
        adoption.index(tmp_path)
    assert "more of the" not in str(caught.value)


RECORDS = {
    "a": b'{"labels": [0, 2], "named_labels": {"writer": 3}, "weight": 2}',
    "b": b'{"labels": [2], "named_labels": {"writer": 1, "day": 0}}',
    "c": b'{"caption": "no \\"labels\\" here", "labels": "none"}',
    "d": b'["labels"]',
    "e": b'"labels" and no JSON',
}


def write_records(folder: Path, write_tar: WriteTar, keys: str, *more: tuple[str, bytes]) -> None:
    members = [part for key in keys for part in ((f"{key}.txt", b"x"), (f"{key}.json", RECORDS[key]))]
    write_tar(folder / "0.tar", [*members, *more])


def test_records_of_others_are_let_be(tmp_path: Path, write_tar: WriteTar) -> None:
    write_records(tmp_path, write_tar, "abcde")
    told: list[str] = []
    adopted = adoption.index(tmp_path, tell=told.append)
    assert (adopted.label_names, adopted.named_labels, adopted.records) == ((), {}, Records())
    assert told[0] == "3 records have 'labels', which is not taken; --labels-from labels takes it"
    assert [sentence.split(";")[0] for sentence in told[1:]] == [
        "2 records have 'named_labels', which is not taken",
        "1 record has 'weight', which is not taken",
        "fields of records that are not taken: 1 caption",
        "no sample has a label: there is no .cls member that holds one, and no record gives one",
        "there is no split but train, so nothing can be evaluated",
    ]
    assert verify_first(tmp_path, adopted).bad == []


def test_what_the_user_names_is_taken_of_records_and_kept_in_the_manifest(tmp_path: Path, write_tar: WriteTar) -> None:
    records = Records(labels="labels", named_labels="named_labels")
    for split, keys in {"train": "abcde", "test": "b"}.items():
        write_records(tmp_path / split, write_tar, keys)
    told: list[str] = []
    adopted = adoption.index(tmp_path, records=records, tell=told.append)
    counts = {name: split.label_counts for name, split in adopted.splits.items()}
    assert counts == {"test": (0, 0, 1), "train": (1, 0, 2)}
    assert adopted.label_names == ("0", "1", "2")
    assert adopted.named_labels == {"day": ("0",), "writer": ("0", "1", "2", "3")}
    assert manifest.read(tmp_path) == adopted
    assert adopted.records == records
    assert told[-1].startswith("2 samples have a label or a record that cannot be read")
    assert {bad.key for bad in verify_first(tmp_path, adopted).bad} == {"c", "e"}


def test_what_was_named_holds_until_another_is(tmp_path: Path, write_tar: WriteTar) -> None:
    write_records(tmp_path, write_tar, "ab")
    taken = adoption.index(tmp_path, records=Records(weight="weight"))
    assert adoption.index(tmp_path) == taken
    assert adoption.index(tmp_path, records=Records()).records == Records()


def test_records_that_hold_labels_alone_are_labels_where_there_are_no_others(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    write_records(tmp_path / "alone", write_tar, "ab")
    told: list[str] = []
    adopted = adoption.index(tmp_path / "alone", tell=told.append)
    assert adopted.label_names == ("0", "1", "2")
    assert adopted.records == Records(labels="labels", named_labels="named_labels"), "never a weight unasked"
    assert told[0].endswith("taken as with --labels-from labels")
    write_records(tmp_path / "others", write_tar, "ab", ("z.txt", b"x"), ("z.cls", b"0"))
    assert adoption.index(tmp_path / "others").label_names == ("0",)


def test_shards_that_were_built_here_keep_their_records_and_class_names(tmp_path: Path) -> None:
    rows = [
        Row(line, (Literal(b"x", "txt"),), label=line % 2, named_labels={"kind": 0}, weight=3.0) for line in range(4)
    ]
    built = build_table(rows, tmp_path, label_names=("cat", "dog"), named_labels={"kind": ("one",)})
    for _ in range(2):
        again = adoption.index(tmp_path)
        assert (again.label_names, again.named_labels, again.records) == (("cat", "dog"), {"kind": ("one",)}, OWN)
        assert again.split("train").label_counts == built.split("train").label_counts


def test_a_folder_that_an_earlier_release_indexed_must_be_indexed_again(
    tmp_path: Path, text_shards: TextShards
) -> None:
    text_shards(tmp_path, [3])
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "records"}))
    with pytest.raises(ValueError, match=r"took labels and weights of records unasked.*index the folder again"):
        manifest.read(tmp_path)
    adoption.index(tmp_path)
    assert manifest.read(tmp_path).records == Records()


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (b'{"named_labels": {"writer": "ann"}}', "a: .json: .* are not numbers: named_labels.writer is 'ann'"),
        (b'{"named_labels": {"writer": -1}}', r"a: \.json: labels \[-1\] are out of range"),
        (b'{"labels": [true]}', r"a: \.json: .* are not numbers: labels is True"),
    ],
)
def test_a_tar_without_a_label_that_can_be_read_is_refused(
    tmp_path: Path, write_tar: WriteTar, record: bytes, told: str
) -> None:
    write_tar(tmp_path / "0.tar", [("a.txt", b"x"), ("a.json", record)])
    with pytest.raises(ValueError, match=told):
        adoption.index(tmp_path, records=OWN)


def test_a_label_among_others_that_cannot_be_read_is_a_bad_sample(tmp_path: Path, write_tar: WriteTar) -> None:
    labels = {"a": b"0", "b": b"cat", "c": b"1"}
    members = [part for key, label in labels.items() for part in ((f"{key}.txt", b"x"), (f"{key}.cls", label))]
    write_tar(tmp_path / "0.tar", members)
    told: list[str] = []
    adopted = adoption.index(tmp_path, tell=told.append)
    assert adopted.split("train").label_counts == (1, 1)
    assert told[0].startswith("1 sample has a label or a record that cannot be read")
    assert [bad.key for bad in verify_first(tmp_path, adopted).bad] == ["b"]


def test_members_that_are_not_read_are_counted_by_their_suffix(tmp_path: Path, write_tar: WriteTar) -> None:
    members = [(f"{n}.{suffix}", b"x") for n in range(3) for suffix in ("txt", "7.png", "meta")]
    write_tar(tmp_path / "0.tar", [*members, ("._9.txt", b"x"), ("README", b"x"), ("lost.cls", b"0")])
    told: list[str] = []
    adoption.index(tmp_path, tell=told.append)
    assert told == [
        "members that are hidden or have no suffix belong to no sample: 1 ._#.txt, 1 README",
        "members that are not read: 3 .#.png, 3 .meta (a suffix begins at the first dot: 0.7.png is of sample '0'; "
        "rename it to 0_7.png)",
        "1 of 4 samples have no member that is read: they are bad samples",
        "there is no split but train, so nothing can be evaluated; tars in a folder test/ are the split test",
    ]


def test_texts_of_records_alone_are_kept_for_an_input_that_names_them(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "0.tar", [(f"{n}.json", b'{"caption": "a cat"}') for n in range(3)])
    told: list[str] = []
    adoption.index(tmp_path, tell=told.append)
    assert told[0] == (
        "3 of 3 samples have no member but their records: their texts are read where an input names one, as "
        "data.inputs.NAME.members=json.FIELD of a run; without it they are bad samples"
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"clip_1.{n:04d}.jpg" for n in range(6)], r"6 \.#\.jpg .* clip_1\.0000\.jpg is of sample 'clip_1'; rename"),
        (["k.left.seg", "k.right.seg"], r"1 \.left\.seg, 1 \.right\.seg"),
        (["a.cls", "b.json"], "only labels and records"),
        ([f"a.{n * 'x'}y" for n in range(9)], "4 other kinds"),
    ],
)
def test_a_tar_in_which_nothing_is_read_is_refused(
    tmp_path: Path, write_tar: WriteTar, names: list[str], told: str
) -> None:
    write_tar(tmp_path / "0.tar", [(name, b"0") for name in names])
    with pytest.raises(ValueError, match=rf"0\.tar: holds no member that is read, but .*{told}.*these are read: "):
        adoption.index(tmp_path)


def test_what_others_put_beside_the_tars_is_passed_over_and_told(
    tmp_path: Path, write_tar: WriteTar, text_shards: TextShards
) -> None:
    others = ["._0.tar", ".Trash-1000/1.tar", "__MACOSX/2.tar", "a/b/3.tar", "4.tar.gz", "5.TAR"]
    for name in others:
        write_tar(tmp_path / name, [("a.txt", b"x")])
    told: list[str] = []
    text_shards(tmp_path, [3])
    adopted = adoption.index(tmp_path, tell=told.append)
    assert adopted.split("train").shards.names == ("train/000000.tar",)
    assert told[0].startswith("skipped, because hidden, compressed, not named .tar, or more than one folder deep: ")
    assert all(name in told[0] or "1 more" in told[0] for name in others)


def test_files_of_others_are_never_overwritten(tmp_path: Path, text_shards: TextShards) -> None:
    for name in ("train/000000.idx", "manifest.json"):
        folder = tmp_path / name.replace("/", "_")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("v1.2 8\n")
        with pytest.raises(ValueError, match=rf"{name}: is .* of another program.*--index-folder OUT"):
            text_shards(folder, [3])
        assert (folder / name).read_text() == "v1.2 8\n"


def test_an_index_folder_leaves_the_tars_and_all_beside_them_alone(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path / "in", [3], "train")
    expected = text_shards(tmp_path / "in", [2], "test")
    for index in (tmp_path / "in").rglob("*.idx"):
        index.write_text("v1.2 8\n")
    (tmp_path / "in/manifest.json").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    adopted = adoption.index(tmp_path / "in", index_folder=tmp_path / "new/out")
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()} == before
    assert {path.name for path in (tmp_path / "new/out").rglob("*.*")} == {"manifest.json", "000000.idx"}
    assert adopted.splits == expected.splits
    report = verify_first(tmp_path / "new/out", adopted)
    assert (report.samples, report.bad) == (3, [])
    (tmp_path / "new/out/train/000000.idx").unlink()
    config = DataConfig(str(tmp_path / "new/out"), inputs={"text": TextConfig(num_bytes=12)}, lanes=1, window=4)
    with streams.train_loader(config, seed=0, global_batch=3) as loader:
        assert sorted(loader(0).keys) == ["tr000_0000", "tr000_0001", "tr000_0002"]


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path / "in", [3])
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(ValueError, match=r"file.*: cannot be written.*--index-folder"):
            adoption.index(tmp_path / "in", index_folder=out)


def test_a_folder_without_the_right_to_write_is_named_with_the_remedy(
    tmp_path: Path, text_shards: TextShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def access(path: Path, right: int) -> bool:
        asked.append(right)
        return path != tmp_path / "in"

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ValueError, match=r"in: cannot be written to; --index-folder OUT"):
        text_shards(tmp_path / "in", [3])
    assert asked == [os.W_OK]
    assert not list(tmp_path.glob("in/*/*.idx"))
    adoption.index(tmp_path / "in", index_folder=tmp_path / "out")


def test_an_index_that_cannot_be_written_is_named_with_the_remedy(
    tmp_path: Path, text_shards: TextShards, write_tar: WriteTar
) -> None:
    # Writing to /dev/full fails as on a full disk.
    write_tar(tmp_path / "a.tar", [("a.txt", b"x")])
    (tmp_path / f".a.idx.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"a\.idx: cannot be written \(No space left on device\); --index-folder"):
        adoption.index(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_a_disk_that_does_not_give_a_tar_is_told(
    tmp_path: Path, write_tar: WriteTar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_tar(tmp_path / "a.tar", [("a.txt", b"x")])
    monkeypatch.setattr(TarIndex, "from_tar", broken)
    with pytest.raises(ValueError, match=r"a\.tar: cannot be read \(Input/output error\); check the disk"):
        adoption.index(tmp_path)


def test_progress_is_told_after_each_tar(tmp_path: Path, write_tar: WriteTar) -> None:
    for name in "abc":
        write_tar(tmp_path / f"{name}.tar", [("a.txt", b"x")])
    told: list[tuple[int, int]] = []
    adoption.index(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_tars_of_the_folder_itself_come_first_whatever_their_names(tmp_path: Path, write_tar: WriteTar) -> None:
    for name in ("z.tar", "train/a.tar", "y.tar", "train/z.tar"):
        write_tar(tmp_path / name, [("a.txt", b"x")])
    assert adoption.index(tmp_path).split("train").shards.names == ("y.tar", "z.tar", "train/a.tar", "train/z.tar")


def test_a_folder_named_as_a_tar_and_a_manifest_that_is_a_folder_are_no_files_of_ours(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    write_tar(tmp_path / "a.tar", [("a.txt", b"x")])
    (tmp_path / "b.tar").mkdir()
    assert adoption.index(tmp_path).split("train").shards.names == ("a.tar",)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ValueError, match=r"manifest\.json: is a file of another program"):
        adoption.index(tmp_path)


def test_class_names_of_before_are_kept_and_further_classes_have_numbers(tmp_path: Path, write_tar: WriteTar) -> None:
    def write(*labels: int) -> Manifest:
        write_tar(tmp_path / "a.tar", [m for n in labels for m in ((f"{n}.txt", b"x"), (f"{n}.cls", b"%d" % n))])
        return adoption.index(tmp_path)

    manifest.write(replace(write(0, 1), label_names=("cat", "dog")), tmp_path)
    assert write(0, 1, 2).label_names == ("cat", "dog", "2")
    assert write(0).label_names == ("cat", "dog", "2"), "a name is never lost"
    manifest.write(replace(write(0, 1), label_names=("0", "1")), tmp_path)
    assert write(0).label_names == ("0",), "numbers are no names"


def test_tars_in_a_linked_folder_are_refused(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path / "other", [3])
    (tmp_path / "in").mkdir()
    (tmp_path / "in/train").symlink_to(tmp_path / "other/train")
    with pytest.raises(ValueError, match=r"in/train: leads out of the folder"):
        adoption.index(tmp_path / "in")


def test_a_folder_without_tars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.tar file in it"):
        adoption.index(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        adoption.index(tmp_path / "none")


def verify_first(folder: Path, shards: Manifest, config: DataConfig | None = None) -> verification.Report:
    """Verify the first shard of train, in this process."""
    entry, intake = shards.split("train").shards[0], verification.intake(shards, "train", config)
    return verification.verify_shard(
        LocalFolder(folder), entry, intake, verification.partners(shards, "train"), shards.label_names
    )


def test_a_sound_folder_verifies(tmp_path: Path, text_shards: TextShards) -> None:
    report = verify_first(tmp_path, text_shards(tmp_path, [30]))
    assert report.ok
    assert (report.samples, report.labels) == (30, {"0": 10, "1": 10, "2": 10})
    assert report.shapes == {"text": [[10], [10]]}


def test_what_is_bad_in_a_shard_is_listed(tmp_path: Path, write_tar: WriteTar) -> None:
    members = [(f"{n:03d}.{extension}", b"hello") for n in range(40) for extension in ("txt", "x")]
    members = [(name, content) for name, content in members if name != "007.txt"]
    members += [("bad.wav", b"RIFF"), ("bad.txt", b"hello"), ("far.txt", b"hello"), ("far.cls", b"3")]
    write_tar(tmp_path / "train/a.tar", members)
    shards = replace(adoption.index(tmp_path), label_names=("zero", "one"))
    report = verify_first(tmp_path, shards)
    assert [(bad.shard, bad.key) for bad in report.bad] == [("train/a.tar", key) for key in ("007", "bad", "far")]
    assert report.bad[0].reason.startswith("has none of audio, text")
    assert report.bad[1].reason.startswith(".wav: ")
    assert report.bad[2].reason.startswith("label 3 is out of range: the manifest names 2 classes")


def test_what_a_sample_has_lost_is_told_and_is_bad_only_where_training_refuses_it(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    members = [(f"{n:03d}.{extension}", b"0") for n in range(40) for extension in ("txt", "cls")]
    write_tar(tmp_path / "train/a.tar", [member for member in members if member[0] != "007.cls"])
    report = verify_first(tmp_path, adoption.index(tmp_path))
    assert report.ok
    assert [(bad.key, bad.reason) for bad in report.incomplete] == [
        ("007", "has no label, nearly all other samples have one")
    ]


def test_a_configuration_is_verified_as_its_run_reads_it(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "a.tar", [("0.txt", b"x"), ("1.wav", b"RIFF"), ("2.txt", b"x"), ("2.wav", b"RIFF")])
    shards = adoption.index(tmp_path)
    assert [bad.key for bad in verify_first(tmp_path, shards).bad] == ["1", "2"]
    report = verify_first(tmp_path, shards, DataConfig(inputs={"text": TextConfig(num_bytes=4)}))
    assert [(bad.key, bad.reason.split(";")[0]) for bad in report.bad] == [("1", "has none of text")]


@pytest.mark.parametrize(
    ("num_whole", "num_alone", "expected"),
    [(1, 1, {"text"}), (9, 1, {"label", "text"}), (8, 2, {"text"}), (190, 10, {"label", "text"}), (189, 11, {"text"})],
)
def test_partners_are_what_nearly_all_samples_have(
    tmp_path: Path, write_tar: WriteTar, num_whole: int, num_alone: int, expected: set[str]
) -> None:
    members = [(f"{number:03d}.txt", b"hello") for number in range(num_whole + num_alone)]
    labels = [(f"{number:03d}.cls", b"0") for number in range(num_whole)]
    write_tar(tmp_path / "train/a.tar", sorted(members + labels))
    assert verification.partners(adoption.index(tmp_path), "train") == expected


def test_what_a_build_left_out_is_not_missed(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("text,label\n" + "hello,0\n" * 30 + "hello,\n")
    built = build(table, tmp_path / "built")
    assert verification.partners(built, "train") == set()
    assert verification.partners(adoption.index(tmp_path / "built"), "train") == {"label", "text"}


def test_a_changed_byte_anywhere_is_found(tmp_path: Path, text_shards: TextShards) -> None:
    shards = text_shards(tmp_path, [3])
    path = tmp_path / "train/000000.tar"
    good = path.read_bytes()
    for place, reason in [
        (100, "has no valid tar header"),
        (512, "its sha256 is not"),
        (len(good) - 1, "continues after"),
    ]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        report = verify_first(tmp_path, shards)
        assert [bad.key for bad in report.bad] == [""]
        assert reason in report.bad[0].reason


@pytest.mark.parametrize("shard", range(4))
def test_damage_in_any_shard_of_any_split_is_found_by_verify_and_by_the_loaders(
    tmp_path: Path, text_shards: TextShards, shard: int
) -> None:
    text_shards(tmp_path, [3, 3, 3], "train")
    shards = text_shards(tmp_path, [3], "test")
    split, number = ("train", shard) if shard < 3 else ("test", 0)
    path, key = tmp_path / split / f"{number:06d}.tar", f"{split[:2]}{number:03d}_0001"
    data = bytearray(path.read_bytes())
    data[data.rindex(key.encode())] ^= 1
    path.write_bytes(data)
    found = verification.Report()
    for name, of in shards.splits.items():
        for entry in of.shards:
            found.add(verification.verify_shard(LocalFolder(tmp_path), entry, verification.intake(shards, name, None)))
    assert [bad.shard for bad in found.bad] == [f"{split}/{number:06d}.tar"]
    config = DataConfig(str(tmp_path), inputs={"text": TextConfig(num_bytes=12)}, lanes=1, window=4)
    loader, _ = streams.eval_loader(config, split, global_batch=9)
    with loader, pytest.raises(ValueError, match=rf"{number:06d}\.tar: {key}: bytes .* are not what was written"):
        loader(0)


@pytest.mark.slow
def test_processes_verify_together(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path, [3, 4, 5])
    (tmp_path / "train/000001.tar").unlink()
    seen: list[tuple[int, int]] = []
    report = verification.verify(tmp_path, num_jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert report.samples == 8
    assert isinstance(report.bad[0], Bad)
    assert "000001.tar: no such file" in report.bad[0].reason


def test_where_no_tar_is_taken_those_passed_over_are_named(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "0.TAR", [("a.txt", b"x")])
    with pytest.raises(ValueError, match=r"no .tar file in it .*skipped, .*: 0\.TAR"):
        adoption.index(tmp_path)


def test_a_class_that_a_record_lists_twice_counts_once_and_is_told(tmp_path: Path, write_tar: WriteTar) -> None:
    members = [
        (f"{n}.{suffix}", data)
        for n in range(3)
        for suffix, data in (("txt", b"a"), ("json", b'{"labels": [0, 0, 1]}'))
    ]
    write_tar(tmp_path / "a.tar", members)
    told: list[str] = []
    found = adoption.index(tmp_path, tell=told.append)
    assert found.splits["train"].label_counts == (3, 3)
    assert any("3 records list a class twice in 'labels', which counts once" in sentence for sentence in told)


NO_SPLIT = "there is no split but train, so nothing can be evaluated; tars in a folder test/ are the split test"
NO_LABEL = "no sample has a label: there is no .cls member that holds one, and no record gives one"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], []),
        (["b.tar.gz"], ["b.tar.gz"]),
        ([".c.tar", "_d/e.tar", "f/g/h.tar", "i.tgz", "j.TAR"], [".c.tar, f/g/h.tar, i.tgz, j.TAR"]),
        ([f"{n}.tar.gz" for n in range(5)], [", ".join(f"{n}.tar.gz" for n in range(5))]),
        ([f"{n}.tar.gz" for n in range(7)], [", ".join(f"{n}.tar.gz" for n in range(5)) + " and 2 more"]),
    ],
)
def test_what_looks_like_a_tar_and_is_skipped_is_told(
    tmp_path: Path, write_tar: WriteTar, names: list[str], told: list[str]
) -> None:
    write_tar(tmp_path / "a.tar", [("a.txt", b"x")])
    for name in names:
        write_tar(tmp_path / name, [("a.txt", b"x")])
    found: list[str] = []
    adopted = adoption.index(tmp_path, tell=found.append)
    skipped = "skipped, because hidden, compressed, not named .tar, or more than one folder deep: "
    assert found == [*(skipped + each for each in told), NO_LABEL, *([] if "_d" in adopted.splits else [NO_SPLIT])]
    assert [shard.name for shard in adopted.split("train").shards] == ["a.tar"]


def test_indexes_of_other_programs_are_counted_and_left(tmp_path: Path, write_tar: WriteTar) -> None:
    for name in "abc":
        write_tar(tmp_path / f"{name}.tar", [("a.txt", b"x")])
        (tmp_path / f"{name}.idx").write_bytes(b"of another")
        others = {"a": "", "b": ", as 1 other is", "c": ", as 2 others are"}[name]
        with pytest.raises(ValueError, match=rf"a\.idx: is an index of another program{others}; it is left as it is"):
            adoption.index(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    assert (tmp_path / "c.idx").read_bytes() == b"of another"


def test_indexes_go_to_a_folder_that_is_made_with_all_its_folders(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "in" / "Test" / "a.tar", [("a.txt", b"x"), ("a.cls", b"0")])
    write_tar(tmp_path / "in" / "b.tar", [("b.txt", b"x"), ("b.cls", b"1"), ("c.txt", b"x"), ("c.cls", b"1")])
    done: list[tuple[int, int]] = []
    told: list[str] = []
    found = adoption.index(
        tmp_path / "in",
        index_folder=tmp_path / "far" / "out",
        progress=lambda *each: done.append(each),
        tell=told.append,
    )
    assert done == [(1, 2), (2, 2)]
    assert told == []
    assert (found.label_names, found.tars, found.adopted) == (("0", "1"), str(tmp_path / "in"), True)
    assert {name: split.label_counts for name, split in found.splits.items()} == {"train": (0, 2), "test": (1, 0)}
    assert sorted(path.relative_to(tmp_path / "far").as_posix() for path in (tmp_path / "far").rglob("*")) == [
        *("out", "out/Test", "out/Test/a.idx", "out/b.idx", "out/manifest.json"),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "in").rglob("*")) == ["Test", "a.tar", "b.tar"]
    # Names that were given to classes stay, and new ones are numbers.
    manifest.write(replace(found, label_names=("cat", "dog")), tmp_path / "far" / "out")
    write_tar(tmp_path / "in" / "c.tar", [("d.txt", b"x"), ("d.cls", b"3")])
    again = adoption.index(tmp_path / "in", index_folder=tmp_path / "far" / "out")
    assert again.label_names == ("cat", "dog", "2", "3")
    assert again.split("train").label_counts == (0, 2, 0, 1)
