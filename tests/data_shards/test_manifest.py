"""The manifest is what was written, can be read by a person, and is refused where it is anything else."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split

ENTRIES = [
    ShardEntry("train/a b.tar", 1000, 35_000_000, "1" * 64, "2" * 64, {"jpg": 993, "jpg/wav": 7}),
    ShardEntry("train/c.tar", 20, 7_000, "3" * 64, "4" * 64, {"txt": 20}),
    ShardEntry("train/d.tar", 5, 1 << 40, "5" * 64, "6" * 64, {"jpg": 5}),
]
WRITTEN = Manifest({"train": Split(Shards.of(ENTRIES), (3, 4)), "test": Split(Shards.of([]), (0, 0))}, ("cat", "dog"))


def written(folder: Path) -> Path:
    manifest.write(WRITTEN, folder)
    return folder / "manifest.json"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    found = manifest.read(tmp_path)
    assert found == WRITTEN
    shards = found.split("train").shards
    assert list(shards) == ENTRIES
    assert (shards[-1], shards[1:]) == (ENTRIES[2], ENTRIES[1:])
    assert shards.suffixes == {"wav": 7, "jpg": 1005, "txt": 20}
    assert shards.num_samples_with(["wav"], ["png", "j*"]).tolist() == [7, 0, 0]
    assert found.split("train").num_samples == 1025
    assert list(found.split("test").shards) == []
    assert found != Manifest({"train": Split(Shards.of(ENTRIES[:2]), (3, 4))}, ("cat", "dog"))


def test_the_file_is_json_with_a_line_a_column(tmp_path: Path) -> None:
    path = written(tmp_path)
    lines = path.read_text().splitlines()
    assert '    "num_samples": "1000 20 5",' in lines
    assert '    "names": ["train/a b.tar", "train/c.tar", "train/d.tar"],' in lines
    assert set(json.loads(path.read_text())["splits"]["train"]) == {"label_counts", "fingerprint", "shards"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"1000 20 5"', '"1000 21 5"', "its shards have the fingerprint"),
        ("train/c.tar", "train/x.tar", "its shards have the fingerprint"),
        ("3" * 64, "3" * 63 + "4", "its shards have the fingerprint"),
        ('"1000 20 5"', '"1000 20"', "3 shards, but numbers of 2"),
        ('"1000 20 5"', '"1000 20 x"', "invalid literal"),
        ('"1000 20 5"', '"1000 20 -5"', "-5 is below 0"),
        ("6" * 64, "6" * 10, "3 shards, but hashes of 2.2"),
        ("6" * 64, "/tmp".rjust(64, "/"), "hashes that are not 64 hexadecimal digits each"),
        ("6" * 64, "../etc/passwd".rjust(64, "/"), "hashes that are not 64 hexadecimal digits each"),
        ('"version": 3', '"version": 1', "version 1, expected 3; build the shards again"),
        ('"num_samples"', '"samples"', "KeyError"),
        ("{", "", "JSONDecodeError"),
    ],
)
def test_another_file_is_refused_with_its_path(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = written(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=rf"manifest\.json: .*{reason}"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.tar", "train/../../secret.tar", "train//c.tar", "./c.tar", "", "train/", "a\0b"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    manifest.write(Manifest({"train": Split(Shards.of([replace(ENTRIES[0], name=name)]), ())}, ()), tmp_path)
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest .*expected the path of a tar within"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("lie", [None, True, -1, 1.5, "x", [], [1], ["x", 1], [["x"]], {}, {"a": 1}, 10**30, "9" * 30])
def test_a_value_of_another_type_anywhere_is_refused_with_the_files_path(tmp_path: Path, lie: object) -> None:
    path = written(tmp_path)
    text = path.read_text()

    def places(part: object) -> Iterator[tuple[dict[str, Any], str]]:
        if isinstance(part, dict):
            yield from ((part, key) for key in part)
            for inner in part.values():
                yield from places(inner)

    for number in range(len(list(places(json.loads(text))))):
        fields = json.loads(text)
        inner, key = list(places(fields))[number]
        inner[key] = lie
        path.write_text(json.dumps(fields))
        try:
            found = manifest.read(tmp_path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert all(split.num_samples >= 0 for split in found.splits.values())


def test_bytes_that_are_no_json_are_refused_with_the_files_path(tmp_path: Path) -> None:
    for content in (b"", b"\x80", b"[" * 10**5, b"[]", b"7"):
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"manifest\.json: not a manifest"):
            manifest.read(tmp_path)


def test_a_fingerprint_names_order_counts_sizes_and_hashes() -> None:
    prints = {
        Shards.of(entries).fingerprint()
        for entries in (
            ENTRIES,
            ENTRIES[::-1],
            ENTRIES[:2],
            [*ENTRIES[:2], ShardEntry("train/d.tar", 6, 1, "5" * 64, "6" * 64, {})],
        )
    }
    assert len(prints) == 4


def test_some_samples_of_shards_are_left_out_by_their_number() -> None:
    shards = Shards.of(ENTRIES)
    some = shards.with_samples(np.array([990, 0, 5]))
    assert (some.names, some.num_samples.tolist(), some.num_bytes.tolist()) == (
        ("train/a b.tar", "train/d.tar"),
        [990, 5],
        [35_000_000, 1 << 40],
    )
    # An index is checked against all samples of the tar, and a kind has no more than are left.
    assert list(some) == [replace(ENTRIES[0], kinds={"jpg": 990, "jpg/wav": 7}), ENTRIES[2]]
    assert some.suffixes == Counter({"jpg": 1002, "wav": 7})
    assert len(shards.with_samples(np.zeros(3, np.int64))) == 0
    assert hash(some) == hash(shards.with_samples(np.array([990, 0, 5]))) != hash(shards)
    assert some != shards


def test_columns_are_texts_that_become_the_shards_again() -> None:
    shards = Shards.of(ENTRIES)
    columns = shards.to_columns()
    assert columns == {
        "names": ("train/a b.tar", "train/c.tar", "train/d.tar"),
        "num_samples": "1000 20 5",
        "num_bytes": f"35000000 7000 {1 << 40}",
        "kinds": {"jpg": "993 0 5", "jpg/wav": "7 0 0", "txt": "0 20 0"},
        "sha256": " ".join(digit * 64 for digit in "135"),
        "index_sha256": " ".join(digit * 64 for digit in "246"),
    }
    assert Shards.from_columns(columns) == shards
    assert list(Shards.from_columns(columns)) == ENTRIES
    assert list(Shards.from_columns(Shards.of([]).to_columns())) == []


@pytest.mark.parametrize(("number", "is_taken"), [(2**62 - 1, True), (2**62, False), (2**64, False)])
def test_numbers_add_up_to_at_most_62_bits(number: int, is_taken: bool) -> None:
    # Half of it in each of two shards.
    halves = f"{number // 2} {number - number // 2}"
    columns = Shards.of(ENTRIES[:2]).to_columns() | {"num_bytes": halves}
    if is_taken:
        assert Shards.from_columns(columns).num_bytes.sum() == number
    else:
        with pytest.raises(ValueError, match=r"add up to more than 62 bits|a number of more than 64 bits"):
            Shards.from_columns(columns)


def test_places_are_those_of_a_list() -> None:
    shards = Shards.of(ENTRIES)
    assert [shards[place] for place in (0, 2, -1, -3)] == [ENTRIES[place] for place in (0, 2, -1, -3)]
    assert shards[::-2] == ENTRIES[::-2]
    assert len(shards) == 3
    for place in (3, -4):
        with pytest.raises(IndexError):
            shards[place]


def test_a_fingerprint_is_the_hash_of_a_row_a_shard() -> None:
    many = [
        replace(ENTRIES[0], name=f"{number}.tar", sha256=f"{number:064x}", num_samples=number)
        for number in range(2_001)
    ]
    rows = "".join(f"{each.sha256} {each.num_samples} {each.num_bytes} {each.name}\n" for each in many)
    assert Shards.of(many).fingerprint() == hashlib.sha256(rows.encode()).hexdigest()


def test_samples_are_counted_that_have_all_members() -> None:
    shards = Shards.of(ENTRIES)
    assert shards.num_samples_with().tolist() == [1000, 20, 5]
    assert shards.num_samples_with(["jpg"]).tolist() == [1000, 0, 5]
    assert shards.num_samples_with(["jpg"], ["wav"]).tolist() == [7, 0, 0]
    assert shards.num_samples_with(["jpg", "txt"]).tolist() == [1000, 20, 5]
    assert shards.num_samples_with(["png"]).tolist() == [0, 0, 0]
