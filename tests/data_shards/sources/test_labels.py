"""What a table's cells say of the classes, in every kind of table."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from data_shards.format import manifest
from data_shards.sources import table
from data_shards.sources.parsing.labels import Labels, numbered

KINDS = ("csv", "tsv", "jsonl", "parquet")


def write(folder: Path, kind: str, column: str, cells: list[object]) -> Path:
    """Write a table with a text in each row and these cells."""
    path = folder / f"table.{kind}"
    texts = [f"text {number}" for number in range(len(cells))]
    if kind == "parquet":
        parquet.write_table(pyarrow.table({"text": texts, column: cells}), path)
    elif kind == "jsonl":
        rows = [{"text": text, column: cell} for text, cell in zip(texts, cells, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerows(
                [["text", column], *zip(texts, ["" if cell is None else cell for cell in cells], strict=True)]
            )
    return path


def labels(folder: Path, kind: str, cells: list[object]) -> tuple[list[int | None], list[str]]:
    found = table.read(write(folder, kind, "label", cells))
    return [row.label for row in found.rows], found.label_names


TWELVE = [str(number) for number in range(12)]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_with_a_decimal_point_are_numbers(tmp_path: Path, kind: str) -> None:
    # As pandas keeps a column of whole numbers with one gap.
    cells = [float(number) for number in range(12)]
    assert labels(tmp_path, kind, [*cells, None]) == ([*range(12), None], TWELVE)


@pytest.mark.parametrize("written", ["{}.0", " {}", "{} ", "+{}", "0{}", "{}e0", "{}.", "\u00a0{}"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_a_number_however_it_is_written(tmp_path: Path, kind: str, written: str) -> None:
    cells: list[object] = [written.format(number) for number in range(12)]
    assert labels(tmp_path, kind, cells) == ([*range(12)], TWELVE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_is_no_label(tmp_path: Path, kind: str) -> None:
    assert labels(tmp_path, kind, [1.0, float("nan"), 0.0]) == ([1, None, 0], ["0", "1"])
    assert labels(tmp_path, kind, ["cat", None, "nan", "  ", "", "NaN", "dog"]) == (
        [0, None, None, None, None, None, 1],
        ["cat", "dog"],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_several_labels_stand_in_a_list(tmp_path: Path, kind: str) -> None:
    for cells, expected, names in [
        ([[0, 1], [0], [], [2, 1, 2]], [(0, 1), (0,), (), (2, 1)], ["0", "1", "2"]),
        ([["dog", "cat"], ["ape"], ["cat"]], [(2, 1), (0,), (1,)], ["ape", "cat", "dog"]),
    ]:
        found = table.read(write(tmp_path, kind, "label", cells))  # type: ignore[arg-type]
        assert [(row.label, row.labels) for row in found.rows] == [(None, several) for several in expected]
        assert found.label_names == names
    told: list[str] = []
    path = write(tmp_path, kind, "label", [[0, 1], [0], [2, 1]])
    built = table.build(path, tmp_path / f"out-{kind}", tell=told.append)
    assert told == ["label: rows have several; a run reads them with data.multi_label=true"]
    assert built.split("train").label_counts == (2, 2, 1)
    assert manifest.read(tmp_path / f"out-{kind}") == built


@pytest.mark.parametrize("column", ["label", "label.year"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([0, 0.5], r"line {second}: {column} 0.5 is not a whole number"),
        ([0, "inf"], r"line {second}: {column} inf is out of range; labels are numbered from 0"),
        ([0, 1e300], r"line {second}: {column} 1e\+300 is out of range"),
        ([0, "1e999999999"], r"line {second}: {column} 1e999999999 is out of range"),
        ([0, "1e99999999999999999999999"], r"line {second}: {column} 1e99999999999999999999999 is out of range"),
        ([0, "9" * 5000], r"line {second}: {column} '9999.*\(5000 characters\) is out of range"),
        ([0, -1], r"line {second}: {column} -1 is out of range"),
        ([0, "cat", 3], r"{column}: is a number on line {first} \(0\) and a name on line {second} \('cat'\)"),
        ([0, True], r"is a number on line {first} \(0\) and a name on line {second} \('True'\)"),
        (["0 1", 0], r"line {first}: {column} '0 1' looks like several labels"),
        (["0;1", 0], r"line {first}: {column} '0;1' looks like several labels"),
        (["0|1", 0], r"looks like several labels"),
        (["[0 1]", 0], r"looks like several labels"),
        (["[cat, dog]", "cat"], r"looks like several labels"),
        (["[[0], [1]]", 0], r"line {first}: {column} .* (holds more than one class|is a list)"),
        (["[0, None]", 0], r"line {first}: {column} .* (has an empty place|is a list)"),
    ],
)
def test_what_is_no_label_is_refused_with_its_line(
    tmp_path: Path, kind: str, column: str, cells: list[object], sentence: str
) -> None:
    first = 2 if kind == "csv" else 1
    with pytest.raises(ValueError, match=sentence.format(first=first, second=first + 1, column=column)):
        table.read(write(tmp_path, kind, column, cells))


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_one_are_single_labels(tmp_path: Path, kind: str) -> None:
    assert labels(tmp_path, kind, [[1], [], [0], [2, 2]]) == ([1, None, 0, 2], ["0", "1", "2"])


def test_a_further_label_is_one_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 1: label.year .*is a list; only the column label may hold several"):
        table.read(write(tmp_path, "jsonl", "label.year", [[0, 1]]))
    found = table.read(write(tmp_path, "jsonl", "label.year", [10.0, None, "2", float("nan")]))
    assert [dict(row.named_labels) for row in found.rows] == [{"year": 10}, {}, {"year": 2}, {}]


def test_true_and_false_are_names_of_the_same_order_in_every_table(tmp_path: Path) -> None:
    for kind in KINDS:
        assert labels(tmp_path, kind, [True, False, True]) == ([1, 0, 1], ["False", "True"])


THREES = [3, 3.0, np.int8(3), np.uint64(3), np.float16(3), np.float32(3), Decimal(3), Decimal("3.00"), b"3", "3", "3e0"]
GAPS = [np.float32("nan"), np.float16("nan"), Decimal("nan"), None, "", "\t", "NaN", "<NA>", []]
WRITINGS = ["{}", "{}.0", " {}", "+{}", "00{}", "{}e0", "{}.00 "]
WORDS = st.text(st.characters(categories=["L"]), min_size=1).filter(lambda name: name.lower() not in ("nan", "inf"))


@pytest.mark.parametrize("cell", [*THREES, [3], (3.0,)])
def test_a_class_has_one_number_in_every_type(cell: object) -> None:
    assert numbered({7: cell}, "label").of_line == {7: (3,)}


@pytest.mark.parametrize("cell", GAPS)
def test_an_empty_cell_is_empty_in_every_type(cell: object) -> None:
    assert numbered({7: cell, 8: "cat"}, "label").of_line == {8: (0,)}


@given(
    numbers=st.lists(st.integers(0, 30), min_size=1, max_size=30),
    writings=st.lists(st.sampled_from(WRITINGS), min_size=30, max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_mixed_writings_of_numbers_are_the_numbers(numbers: list[int], writings: list[str]) -> None:
    cells = [writing.format(number) for number, writing in zip(numbers, writings, strict=False)]
    found = numbered(dict(enumerate(cells)), "label")
    assert found.of_line == {line: (number,) for line, number in enumerate(numbers)}
    assert found.names == [str(number) for number in range(max(numbers) + 1)]


@given(names=st.lists(WORDS, min_size=1))
@settings(max_examples=100, deadline=None)
def test_names_are_numbered_in_alphabetical_order(names: list[str]) -> None:
    found = numbered(dict(enumerate(names)), "label")
    assert found.names == sorted(set(names))
    assert [found.names[label] for (label,) in found.of_line.values()] == names


@pytest.mark.parametrize(
    "cells",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 1, 0], [0, 1, 1]],
        [[0, 1], [1, 0]],
        [["1.0", "0.0"], ["0.0", "1.0"]],
        [[0, 0, 0, 1]],
    ],
)
def test_a_place_for_each_class_is_no_list_of_classes(tmp_path: Path, cells: list[object]) -> None:
    with pytest.raises(ValueError, match=r"line 1: label \[.*\] looks like a place for each class"):
        labels(tmp_path, "jsonl", cells)


@pytest.mark.parametrize("cells", [[[0, 1], [0, 1]], [[0, 1], [1]], [[0, 2, 2], [1, 1, 0]], [[1], [0]]])
def test_lists_of_classes_may_look_a_little_like_places(tmp_path: Path, cells: list[object]) -> None:
    labels(tmp_path, "jsonl", cells)


@pytest.mark.parametrize("name", ["None", "NULL", "n/a", "-", "?"])
def test_a_class_that_may_be_an_empty_cell_is_told(tmp_path: Path, name: str) -> None:
    told: list[str] = []
    table.read(write(tmp_path, "csv", "label", [name, "cat", "dog"]), told.append)
    assert [sentence for sentence in told if f"{name!r} is a class; where it means that there is no label" in sentence]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({1: "b", 2: "a", 5: " b "}, Labels({1: (1,), 2: (0,), 5: (1,)}, ["a", "b"])),
        ({1: "2", 2: 0.0, 3: b"1"}, Labels({1: (2,), 2: (0,), 3: (1,)}, ["0", "1", "2"])),
        ({1: None, 2: "  ", 3: float("nan"), 4: "NaN", 5: "<NA>", 6: 0}, Labels({6: (0,)}, ["0"])),
        ({1: None}, Labels({}, [])),
        ({1: [1], 2: (0,), 3: "[1]", 4: []}, Labels({1: (1,), 2: (0,), 3: (1,)}, ["0", "1"])),
        ({1: "[2, 0, 2]", 2: "(1, 0)"}, Labels({1: (2, 0), 2: (1, 0)}, ["0", "1", "2"], several=True)),
        ({1: "['b', 'a']", 2: "b"}, Labels({1: (1, 0), 2: (1,)}, ["a", "b"], several=True)),
        # An accent behind its letter or in one with it is one class.
        ({1: "e\u0301", 2: "\u00e9"}, Labels({1: (0,), 2: (0,)}, ["e\u0301"])),
        ({1: True, 2: "False"}, Labels({1: (1,), 2: (0,)}, ["False", "True"])),
        # One list in every row, all of one place: classes.
        ({1: "[0]", 2: "[1]"}, Labels({1: (0,), 2: (1,)}, ["0", "1"])),
        ({1: "[0, 1]", 2: "[0, 1]"}, Labels({1: (0, 1), 2: (0, 1)}, ["0", "1"], several=True)),
        ({1: "[0, 1]", 2: "[2, 1]"}, Labels({1: (0, 1), 2: (2, 1)}, ["0", "1", "2"], several=True)),
        ({1: "999999", 2: "0"}, None),
    ],
)
def test_cells_become_numbers_of_classes(cells: dict[int, object], expected: Labels | None) -> None:
    found = numbered(cells, "label")
    if expected is None:
        assert (found.of_line, len(found.names)) == ({1: (999_999,), 2: (0,)}, 1_000_000)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({1: "[0, 1]", 2: "[1, 0]"}, r"^line 1: label \[0, 1\] looks like a place for each class"),
        ({1: [1, 1], 2: [1, 1]}, r"^line 1: label \[1, 1\] looks like a place for each class"),
        ({1: "a", 2: {"a": 1}}, r"^line 2: label \{'a': 1\} holds more than one class"),
        ({1: [[1], [2]]}, r"^line 1: label \[\[1\], \[2\]\] holds more than one class"),
        ({1: [1, None]}, "^line 1: label .* has an empty place"),
        ({3: "1, 2"}, "^line 3: label '1, 2' looks like several labels"),
        ({1: "1000001"}, "^line 1: label 1000001 is out of range"),
        ({1: "a", 2: 3}, r"^label: is a number on line 2 \(3\) and a name on line 1 \('a'\)"),
    ],
)
def test_cells_that_are_no_class_are_refused_with_their_line(cells: dict[int, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        numbered(cells, "label")


def test_only_the_column_label_may_hold_several() -> None:
    with pytest.raises(
        ValueError, match=r"^line 1: label\.kind \[0\] is a list; only the column label may hold several"
    ):
        numbered({1: [0]}, "label.kind")
