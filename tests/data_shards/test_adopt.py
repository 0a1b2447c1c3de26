"""Adopting and verifying: plain tars become a shard folder, and what is bad in one is listed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards import adopt, manifest, verify
from data_shards.manifest import Manifest
from data_shards.sources.table import build
from data_shards.verify import Bad

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
    assert adopted.split("train").shards[1].modalities == {"text": 4}


def test_tars_in_the_folder_itself_are_the_train_split(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "laion-000.tar", [("a.txt", b"x"), ("a.json", b"{}")])
    before = (tmp_path / "laion-000.tar").read_bytes()
    split = adopt.index(tmp_path).split("train")
    assert [shard.name for shard in split.shards] == ["laion-000.tar"]
    assert split.label_counts == ()
    assert (tmp_path / "laion-000.tar").read_bytes() == before


def test_bad_tars_are_named_and_no_manifest_is_written(tmp_path: Path, write_tar: WriteTar) -> None:
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", [("a.txt", b"x"), ("a.cls", b"0" if name == "a" else b"cat")])
    with pytest.raises(ValueError, match=r"b\.tar: a: label 'cat' is not a number .*; 1 more of the 3 tars are bad"):
        adopt.index(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_labels_of_records_are_adopted_and_what_others_record_is_let_be(tmp_path: Path, write_tar: WriteTar) -> None:
    records = {
        "a": b'{"labels": [0, 2], "named_labels": {"writer": 3}}',
        "b": b'{"labels": [2], "named_labels": {"writer": 1, "day": 0}}',
        "c": b'{"caption": "no \\"labels\\" here", "labels": "none"}',
        "d": b'["labels"]',
        "e": b'"labels" and no JSON',
    }
    for split, keys in {"train": "abcde", "test": "b"}.items():
        members = [part for key in keys for part in ((f"{key}.txt", b"x"), (f"{key}.json", records[key]))]
        write_tar(tmp_path / split / "0.tar", members)
    adopted = adopt.index(tmp_path)
    counts = {name: split.label_counts for name, split in adopted.splits.items()}
    assert counts == {"test": (0, 0, 1), "train": (1, 0, 2)}
    assert adopted.label_names == ("0", "1", "2")
    assert adopted.named_labels == {"day": ("0",), "writer": ("0", "1", "2", "3")}
    assert manifest.read(tmp_path) == adopted


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (b'{"named_labels": {"writer": "ann"}}', "a: label 'writer' 'ann' is not a number from 0"),
        (b'{"named_labels": {"writer": -1}}', "a: label 'writer' '-1' is not a number from 0"),
        (b'{"labels": [true]}', "a: label 'True' is not a number from 0"),
    ],
)
def test_labels_of_records_that_are_no_numbers_are_refused(
    tmp_path: Path, write_tar: WriteTar, record: bytes, told: str
) -> None:
    write_tar(tmp_path / "0.tar", [("a.txt", b"x"), ("a.json", record)])
    with pytest.raises(ValueError, match=told):
        adopt.index(tmp_path)


def test_a_folder_without_tars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.tar file in it"):
        adopt.index(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        adopt.index(tmp_path / "none")


def test_a_sound_folder_verifies(tmp_path: Path, text_shards: TextShards) -> None:
    shards = text_shards(tmp_path, [30])
    report = verify.verify_shard(tmp_path, shards.split("train").shards[0], shards.label_names)
    assert report.ok
    assert (report.samples, report.labels) == (30, {"0": 10, "1": 10, "2": 10})
    assert report.shapes == {"text": [[10], [10]]}


def test_what_is_bad_in_a_shard_is_listed(tmp_path: Path, write_tar: WriteTar) -> None:
    members = [(f"{n:03d}.{extension}", b"hello") for n in range(40) for extension in ("txt", "x")]
    members = [(name, content) for name, content in members if name != "007.txt"]
    members += [("bad.wav", b"RIFF"), ("bad.txt", b"hello"), ("far.txt", b"hello"), ("far.cls", b"3")]
    write_tar(tmp_path / "train/a.tar", members)
    shards = adopt.index(tmp_path)
    entry, partners = shards.split("train").shards[0], verify.partners(shards, "train")
    report = verify.verify_shard(tmp_path, entry, ("zero", "one"), partners)
    assert [(bad.shard, bad.key) for bad in report.bad] == [("train/a.tar", key) for key in ("007", "bad", "far")]
    assert report.bad[0].reason == "has no text, nearly all other samples of the split have one"
    assert report.bad[1].reason.startswith(".wav: ")
    assert report.bad[2].reason == "label 3 is out of range: the manifest names 2 classes"


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
    assert verify.partners(adopt.index(tmp_path), "train") == expected


def test_what_a_build_left_out_is_not_missed(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("text,label\n" + "hello,0\n" * 30 + "hello,\n")
    built = build(table, tmp_path / "built")
    assert verify.partners(built, "train") == set()
    assert verify.partners(adopt.index(tmp_path / "built"), "train") == {"label", "text"}


def test_a_changed_byte_anywhere_is_found(tmp_path: Path, text_shards: TextShards) -> None:
    shards = text_shards(tmp_path, [3])
    path, entry = tmp_path / "train/000000.tar", shards.split("train").shards[0]
    good = path.read_bytes()
    for place, reason in [
        (100, "has no valid tar header"),
        (512, "its sha256 is not"),
        (len(good) - 1, "goes on after"),
    ]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        report = verify.verify_shard(tmp_path, entry, shards.label_names)
        assert [bad.key for bad in report.bad] == [""]
        assert reason in report.bad[0].reason


@pytest.mark.slow
def test_processes_verify_together(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path, [3, 4, 5])
    (tmp_path / "train/000001.tar").unlink()
    seen: list[tuple[int, int]] = []
    report = verify.verify(tmp_path, num_jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert report.samples == 8
    assert isinstance(report.bad[0], Bad)
    assert "000001.tar: no such file" in report.bad[0].reason
