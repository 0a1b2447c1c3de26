"""What is counted in tars of others, and what a user is told of it, word by word."""

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from data_shards.building.adoption_counts import LABELS_ALONE, Labels, Members, listed
from data_shards.format.annotations import OWN, Records
from data_shards.format.tar_index import TarIndex

EARLY = " (a suffix begins at the first dot: scan_1.5mm.png is of sample 'scan_1'; rename it to scan_1_5mm.png)"


def index(path: Path, *names: str) -> TarIndex:
    with tarfile.open(path, "w") as tar:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size = 1
            tar.addfile(header, io.BytesIO(b"0"))
    return TarIndex.from_tar(path, Counter())


def test_members_are_counted_by_what_is_done_with_them(tmp_path: Path) -> None:
    members = Members()
    members.add_index(index(tmp_path / "a.tar", "a.png", "a.cls", "b.left.jpg", "c.0001.part", "c.json", "d.12.part"))
    assert members == Members(num_samples=4, num_empty=2, unread=Counter({"#.part": 2}), named=Counter({"left.jpg": 1}))
    assert list(members.sentences(Records())) == [
        "members that are not read: 2 .#.part",
        "members that are read where an input names them, as data.inputs.NAME.members=left.jpg of a run: 1 .left.jpg",
        "2 of 4 samples have no member that is read: they are bad samples",
    ]
    assert members.refusal() == ""
    members.num_texts = 2
    assert list(members.sentences(Records()))[2] == (
        "2 of 4 samples have no member but their records: their texts are read where an input names one, as "
        "data.inputs.NAME.members=json.FIELD of a run; without it they are bad samples"
    )
    members.loose = Counter({"README": 3})
    assert next(iter(members.sentences(Records()))) == (
        "members that are hidden or have no suffix belong to no sample: 3 README"
    )


def test_a_suffix_that_begins_too_early_is_told_once_with_its_remedy(tmp_path: Path) -> None:
    members = Members()
    members.add_index(index(tmp_path / "a.tar", "x.y", "scan_1.5mm.png", "scan_2.5mm.png"))
    assert members.unread == Counter({"#mm.png": 2, "y": 1})
    assert members.early == EARLY
    assert next(iter(members.sentences(Records()))) == f"members that are not read: 2 .#mm.png, 1 .y{EARLY}"
    assert members.refusal().startswith(f"holds no member that is read, but 2 .#mm.png, 1 .y{EARLY}; these are read: .")
    of_folder = Members()
    of_folder.add_index(index(tmp_path / "b.tar", "deep/scan_1.5mm.png"))
    # Where the sample lies is not in its name.
    assert of_folder.early == EARLY


def test_tars_in_which_nothing_is_read_are_refused(tmp_path: Path) -> None:
    members = Members()
    members.add_index(index(tmp_path / "a.tar", "a.json", "b.cls"))
    refusal = members.refusal()
    assert refusal.startswith("holds no member that is read, but only labels and records; these are read: .")
    read = refusal.partition(": ")[2].split()
    assert read == sorted(read)
    assert {".png", ".wav", ".txt", ".npy", ".mp4", ".first.png"} <= set(read)
    assert ".cls" not in read
    members.num_texts = 1
    assert members.refusal() == ""


RECORDS = [b'{"labels": [1]}', b'{"weight": 2, "caption": "x", "n": 3}', b"no json", b"[1]", b'{"labels": "x"}']


def test_fields_of_records_are_counted() -> None:
    members = Members(num_samples=9)
    for record in RECORDS:
        members.add_record(record)
    assert members == Members(
        num_samples=9,
        num_records=5,
        fields=Counter({"labels": 2, "weight": 1, "": 3}),
        other_fields=Counter({"caption": 1, "n": 1}),
        num_texts=1,
    )
    assert list(members.sentences(Records())) == [
        "2 records have 'labels', which is not taken; --labels-from labels takes it",
        "1 record has 'weight', which is not taken; --weight-from weight takes it",
        "fields of records that are not taken: 1 caption, 1 n; --labels-from FIELD takes one as the label",
    ]
    assert list(members.sentences(Records(labels="n", weight="weight"))) == [
        "2 records have 'labels', which is not taken; --labels-from labels takes it",
        "fields of records that are not taken: 1 caption; --labels-from FIELD takes one as the label",
    ]
    named = Members(fields=Counter({"named_labels": 1, "values": 2}))
    assert list(named.sentences(Records())) == [
        "1 record has 'named_labels', which is not taken; --named-labels-from named_labels takes it",
        "2 records have 'values', which is not taken; --values-from values takes it",
    ]
    assert list(named.sentences(OWN)) == []


@pytest.mark.parametrize(
    ("records", "are_labels"),
    [
        ([], False),
        ([b'{"labels": 1}'], True),
        ([b'{"labels": 1}', b'{"labels": 2, "weight": 3, "values": {}, "named_labels": {}}'], True),
        ([b'{"labels": 1}', b'{"weight": 1}'], False),
        ([b'{"labels": 1, "x": 1}'], False),
        ([b'{"labels": 1}', b"[]"], False),
    ],
)
def test_records_that_hold_labels_alone_are_told_from_others(records: list[bytes], are_labels: bool) -> None:
    members = Members()
    for record in records:
        members.add_record(record)
    assert members.records_hold_labels_alone is are_labels


def test_fields_of_one_record_are_counted_in_the_order_of_their_names() -> None:
    members = Members()
    members.add_record(b'{"f": 1, "b": 1, "d": 1, "a": 1, "e": 1, "c": 1}')
    assert list(members.other_fields) == ["a", "b", "c", "d", "e", "f"]


def test_of_fields_without_end_the_first_hundred_are_kept() -> None:
    members = Members()
    for number in range(101):
        members.add_record(b'{"f%d": 1}' % number)
    members.add_record(b'{"f0": 1}')
    members.add_record(b'{"f100": 1}')
    assert len(members.other_fields) == 100
    assert (members.other_fields["f0"], members.other_fields["f99"], members.other_fields["f100"]) == (2, 1, 0)
    assert members.fields == Counter({"": 103})


def test_counts_of_two_tars_are_added() -> None:
    one = Members(1, 2, Counter("ab"), Counter("c"), Counter("d"), "", 3, Counter("e"), Counter("f"), 4)
    two = Members(10, 20, Counter("b"), Counter("cg"), Counter("d"), "early", 30, Counter("e"), Counter("h"), 40)
    one.add(two)
    assert one == Members(
        *(11, 22, Counter("abb"), Counter("ccg"), Counter("dd"), "early", 33, Counter("ee"), Counter("fh"), 44)
    )  # fmt: skip
    one.add(Members(early="later"))
    assert one.early == "early"
    labels = Labels(OWN, Counter({1: 2}), Counter({"a": 3}), Counter({"v": 1}), 1, 2, 3, "")
    labels.add(Labels(OWN, Counter({1: 1, 2: 1}), Counter({"a": 2, "b": 1}), Counter({"v": 4}), 10, 20, 30, "x"))
    labels.add(Labels(OWN, first_bad="y"))
    expected = Counter({1: 3, 2: 1}), Counter({"a": 3, "b": 1}), Counter({"v": 4})
    assert labels == Labels(OWN, *expected, 11, 22, 33, "x")


def test_labels_are_counted_sample_by_sample() -> None:
    labels = Labels(OWN)
    labels.add_sample("t: a", {"cls": b"1"})
    labels.add_sample("t: b", {"cls": b"2", "json": b'{"labels": [2, 0, 0], "values": {"v": [1, 2, 3], "w": 1}}'})
    labels.add_sample("t: c", {"json": b'{"named_labels": {"kind": 4}, "values": {"v": 1}}'})
    labels.add_sample("t: d", {"cls": b"-1"})
    labels.add_sample("t: e", {"cls": b"x"})
    labels.add_sample("t: f", {"cls": b"y"})
    labels.add_sample("t: g", {"json": b'{"named_labels": {"kind": 2}}'})
    assert labels == Labels(
        OWN,
        counts=Counter({1: 1, 2: 1, 0: 1}),
        num_classes=Counter({"kind": 5}),
        num_values=Counter({"v": 3, "w": 1}),
        num_labelled=4,
        num_doubled=1,
        num_bad=2,
        first_bad="t: e: .cls: label is not a number from 0 to 1000000: 'x'",
    )
    assert list(labels.sentences()) == [
        "1 record lists a class twice in 'labels', which counts once; these are to be numbers of classes, such as "
        "[0, 2], and not a one or a zero for each class",
        "2 samples have a label or a record that cannot be read: `perceiver data verify` lists what is bad; the first "
        "is t: e: .cls: label is not a number from 0 to 1000000: 'x'",
    ]
    assert list(Labels(OWN).sentences()) == []
    assert Records(labels="labels", named_labels="named_labels") == LABELS_ALONE


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"a": 1, "b": 3}, "3 .b, 1 .a"),
        ({}, ""),
        (dict.fromkeys("abcde", 2), "2 .a, 2 .b, 2 .c, 2 .d, 2 .e"),
        (dict.fromkeys("abcdef", 2), "2 .a, 2 .b, 2 .c, 2 .d, 2 .e, 1 other kind"),
        (dict.fromkeys("abcdefg", 2), "2 .a, 2 .b, 2 .c, 2 .d, 2 .e, 2 other kinds"),
    ],
)
def test_the_five_most_common_are_listed(counts: dict[str, int], text: str) -> None:
    assert listed(Counter(counts), ".") == text
