"""Rows of tables in the state in which people have them."""

import csv
import json
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from data_shards.sources import table
from data_shards.sources.parsing import cells


def read(path: Path) -> list[tuple[int, dict[str, object]]]:
    return list(cells.read(path))


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_cell_may_have_any_length_and_the_limit_of_others_stays(tmp_path: Path, kind: str) -> None:
    before = csv.field_size_limit()
    long = "a\tb,\n" * 100_000
    with (tmp_path / f"a.{kind}").open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if kind == "tsv" else ",").writerows([["text"], [long]])
    assert read(tmp_path / f"a.{kind}") == [(100_002, {"text": long})]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"text,label,text\na,0,b\n", "line 1: column 'text' is there twice; leave one out"),
        ("a.tsv", b"text\ttext\n", "line 1: column 'text' is there twice"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": "a", "label": 0, "label": 1}\n',
            "line 2: not JSON .key 'label' is there twice",
        ),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud83d"}\n', r"line 2: '\\ud83d' is half a character"),
        ("a.jsonl", b'{"text": "a"}\n\n{"label": ["\\udc00"]}\n', r"line 3: '\\udc00' is half a character"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": "\xed\xa0\xbd"}\n',
            r"line 2: byte 24 \(0xed\) cannot be decoded",
        ),
        (
            "a.jsonl",
            b'{"text": "a"}\n[{"text": "b"}]\n',
            "line 2: expected an object, got list; write one object",
        ),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, "line 2: not JSON"),
        ("a.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}", "line 1: not JSON"),
        ("a.csv", b"text,label\na,0\nb\n", "line 3: expected 2 cells, got 1"),
        ("a.csv", b'text,label\na,0\n"b,0\n', "line 3: unexpected end of data"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: {sentence}"):
        table.read(tmp_path / name)


def test_whole_characters_of_two_halves_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\udc08 \\u00e9"}\n')
    assert read(tmp_path / "a.jsonl") == [(1, {"text": "🐈 é"})]


def test_blank_lines_are_no_rows_and_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n\n"a\nb",0\n\n\nc,1\n\n')
    assert read(tmp_path / "a.csv") == [(4, {"text": "a\nb", "label": "0"}), (7, {"text": "c", "label": "1"})]
    (tmp_path / "a.jsonl").write_text('\n{"text": "a"}\n  \n{"text": "b"}')
    assert [line for line, _ in read(tmp_path / "a.jsonl")] == [2, 4]


def test_a_parquet_table_with_one_name_for_two_columns_is_refused(tmp_path: Path) -> None:
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column 'text' is there twice"):
        read(tmp_path / "a.parquet")


def test_text_in_parquet_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    broken = pyarrow.array([b"a", b"b", b"\xff"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="line 3: holds a value that cannot be read"):
        read(tmp_path / "a.parquet")


def test_texts_in_bytes_are_texts(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": ["zwölf".encode(), b"b"]}), tmp_path / "a.parquet")
    rows = table.read(tmp_path / "a.parquet").rows
    assert [row.members[0].read() for row in rows] == ["zwölf".encode(), b"b"]
    parquet.write_table(pyarrow.table({"text": [b"a", b"b\xff"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"line 2: text b'b\\xff' is not UTF-8 at byte 1"):
        table.read(tmp_path / "a.parquet")


@pytest.mark.parametrize("value", [3, 1.5, True, ["a"], {"a": 1}])
def test_a_text_or_a_path_of_another_type_is_refused(tmp_path: Path, value: object) -> None:
    for column, what in [("text", "a text"), ("image", "the path of a file")]:
        (tmp_path / "a.jsonl").write_text(json.dumps({column: value}))
        with pytest.raises(ValueError, match=f"line 1: {column} expected {what}, got {type(value).__name__}"):
            table.read(tmp_path / "a.jsonl")


def test_gaps_of_numbers_are_absent_in_every_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "image": NaN, "weight": NaN, "split": NaN, "label": NaN, "label.x": NaN}\n'
    )
    found = table.read(tmp_path / "a.jsonl")
    (row,) = found.rows
    assert (len(row.members), row.weight, row.split, row.label, row.named_labels) == (1, 1.0, "train", None, {})


@pytest.mark.parametrize("weight", ["1e300", "inf", "-1", "nan", "heavy", "1e999"])
def test_a_weight_that_the_loss_cannot_hold_is_refused(tmp_path: Path, weight: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,weight\na,1\nb,{weight}\n")
    with pytest.raises(ValueError, match=f"line 3: weight '{weight}' is not a number from 0 to 1e.12"):
        table.read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("cell", "split"), [("Train", "train"), ("TEST ", "test"), (" Val", "val"), ("Fold1", "Fold1")]
)
def test_splits_of_a_table_are_known_in_any_case(tmp_path: Path, cell: str, split: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,split\na,{cell}\n")
    assert table.read(tmp_path / "a.csv").rows[0].split == split


@pytest.mark.parametrize("name", ["a\u00a0b", "a\u202fb", "a\u3000b", "👩\u200d🚀", "a\u2028b"])
def test_files_and_classes_of_any_name_of_text_are_built(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.txt").write_text("a text")
    (tmp_path / "a.csv").write_text(f"text,label\n{name}.txt,{name}\n", newline="")
    built = table.build(tmp_path / "a.csv", tmp_path / "out")
    assert (built.label_names, built.split("train").num_samples) == ((name,), 1)


LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
ROWS = st.lists(st.tuples(st.text(LETTERS, max_size=9), st.text(LETTERS, max_size=9)), max_size=9)


@given(rows=ROWS, end=st.sampled_from(["\n", "\r\n", "\r"]), kind=st.sampled_from(["csv", "tsv", "jsonl"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, str]], end: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    with path.open("w", newline="", encoding="utf-8") as file:
        if kind == "jsonl":
            file.writelines(json.dumps({"text": a, "label": b}, ensure_ascii=len(a) > 4) + "\n" for a, b in rows)
        else:
            writer = csv.writer(
                file, delimiter="\t" if kind == "tsv" else ",", lineterminator=end, quoting=csv.QUOTE_ALL
            )
            writer.writerows([("text", "label"), *rows])
    expected = [{name: cell for name, cell in zip(("text", "label"), row, strict=True) if cell.strip()} for row in rows]
    assert [found for _, found in read(path)] == expected
