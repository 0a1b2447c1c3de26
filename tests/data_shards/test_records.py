"""What labels and records say, and what is no label and no record."""

import math
from typing import Any

import pytest

from data_shards.format.annotations import MAX_LABEL, OWN, Notes, Records, notes

NESTED = b"[" * 100_000


@pytest.mark.parametrize(
    ("content", "label"), [(b"3", 3), (b" 12\n", 12), (b"007", 7), (b"-1", -1), (str(MAX_LABEL).encode(), MAX_LABEL)]
)
def test_a_label_is_a_number_in_ascii(content: bytes, label: int) -> None:
    assert notes({"cls": content}).label == label


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a number"),
        (b"cat", "not a number from 0 to 1000000: 'cat'"),
        (b"1.0", "not a number"),
        (b"1_0", "not a number"),
        (b"+1", "not a number"),
        ("\u0661".encode(), "not a number"),
        (b"nan", "not a number"),
        (b"-2", "label -2 is out of range"),
        (b"1000001", "out of range"),
        (b"9" * 5_000, "out of range"),
    ],
)
def test_what_is_no_label_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=rf"\.cls: .*{told}") as error:
        notes({"cls": content})
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (b"{}", Notes()),
        (b'["of", "others"]', Notes()),
        (b'{"labels": null, "weight": null, "named_labels": null}', Notes()),
        (b'{"labels": [3, 1, 3]}', Notes(labels=(3, 1))),
        (b'{"labels": [2.0]}', Notes(labels=(2,))),
        (b'{"labels": 4}', Notes(labels=(4,))),
        (b'{"weight": 0}', Notes(weight=0.0)),
        (b'{"weight": 2.5, "named_labels": {"writer": 3, "day": null}}', Notes(named_labels={"writer": 3}, weight=2.5)),
    ],
)
def test_a_record_of_ours_gives_labels_and_a_weight(record: bytes, found: Notes) -> None:
    assert notes({"json": record}, OWN) == found


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (NESTED, "no JSON .RecursionError"),
        (b"\xff", "no JSON"),
        (b'{"labels": [1e999]}', "labels is inf"),
        (b'{"labels": [1.5]}', "labels is 1.5"),
        (b'{"labels": ["0"]}', "labels is '0'"),
        (b'{"labels": "outdoor"}', "labels is 'outdoor'"),
        (b'{"labels": [true]}', "labels is True"),
        (b'{"labels": [[0]]}', r"labels is \[0\]"),
        (b'{"labels": {"0": 1}}', "labels is {'0': 1}"),
        (b'{"labels": [-1]}', r"labels \[-1\] are out of range"),
        (b'{"labels": [1000001]}', "out of range"),
        (b'{"labels": [' + b"9" * 400 + b"]}", "out of range"),
        (b'{"labels": [' + b"9" * 5_000 + b"]}", "no JSON"),
        (b'{"named_labels": [1]}', "named_labels is"),
        (b'{"named_labels": {"writer": "ann"}}', "named_labels.writer is 'ann'"),
        (b'{"weight": "1.2 kg"}', "weight is '1.2 kg'"),
        (b'{"weight": true}', "weight is True"),
        (b'{"weight": -1}', "weight -1.0 is out of range"),
        (b'{"weight": NaN}', "weight nan is out of range"),
        (b'{"weight": 1e999}', "weight inf"),
        (b'{"weight": 1e300}', r"weight 1e\+300"),
        (b'{"weight": 3e38}', r"weight 3e\+38"),
        (b'{"weight": ' + b"9" * 400 + b"}", "weight inf"),
    ],
)
def test_a_record_that_gives_no_number_is_refused(record: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=rf"\.json: .*{told}") as error:
        notes({"json": record}, OWN)
    assert len(str(error.value)) < 250
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", [NESTED, b"no JSON", b'{"weight": "1.2 kg", "labels": "outdoor"}', b'{"": 7}'])
def test_what_is_not_asked_of_a_record_is_not_read(record: bytes) -> None:
    assert notes({"json": record, "cls": b"1"}, Records()) == Notes(label=1)


@pytest.mark.parametrize("fields", [Records(labels="tag"), Records(named_labels="tags"), Records(weight="score")])
def test_a_field_without_a_name_is_never_the_one_that_was_not_named(fields: Records) -> None:
    found = notes({"json": b'{"": "of others"}'}, fields)
    assert (found.labels, found.named_labels, found.weight) == ((), {}, 1.0)


def test_only_the_further_labels_that_are_wanted_are_read() -> None:
    members = {"json": b'{"named_labels": {"writer": "ann", "day": 2}}'}
    assert notes(members, OWN, ["day", "hour"]).named_labels == {"day": 2}
    with pytest.raises(ValueError, match="writer"):
        notes(members, OWN)


@pytest.mark.parametrize("fields", [Records(labels="tags"), Records(weight="score")])
def test_any_field_can_be_named(fields: Records) -> None:
    found: Any = notes({"json": b'{"tags": [1, 2], "score": 0.5, "labels": [9], "weight": 9}'}, fields)
    assert (found.labels, found.weight) == (((1, 2), 1.0) if fields.labels else ((), 0.5))
    assert math.isfinite(found.weight)
