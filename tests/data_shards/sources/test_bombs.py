"""Tables of few bytes that unpack to many, and what a table says that can only be a mistake."""

import gzip
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from data_shards.format.annotations import MAX_WEIGHT
from data_shards.sources import table, text
from data_shards.sources.parsing import cells, plain_text


def test_a_long_line_is_refused_before_it_takes_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "MAX_LINE", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text":"a"}\n{"text":"' + b"a" * 2000 + b'"}\n'))
    with pytest.raises(ValueError, match=r"a.jsonl.gz: line 2: is longer than 1000; cut it"):
        table.read(tmp_path / "a.jsonl.gz")
    with pytest.raises(ValueError, match=r"a.jsonl.gz: line 2: is longer than 1000; cut it"):
        text.build({"train": tmp_path / "a.jsonl.gz"}, tmp_path / "out")
    (tmp_path / "a.csv").write_text("text,label\na,0\n" + "a" * 2000 + ",1\n")
    with pytest.raises(ValueError, match=r"a.csv: line 3: is longer than 1000; cut it"):
        table.read(tmp_path / "a.csv")


def test_a_parquet_of_few_bytes_is_not_unpacked_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_HELD_BYTES", 1 << 20)
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5000, pyarrow.int32()), ["x" * 10_000])
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(ValueError, match=r"a.parquet: line 105: the texts up to here have more than 1048576 bytes"):
        table.read(tmp_path / "a.parquet")
    assert pyarrow.total_allocated_bytes() - before < 10 << 20


def test_a_long_cell_of_parquet_is_refused_before_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{number} {'x' * 400}" for number in range(20)]
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    rows = list(cells.read(tmp_path / "a.parquet"))
    monkeypatch.setattr(cells, "_MOST_AT_ONCE", 100)
    assert (
        list(cells.read(tmp_path / "a.parquet")) == rows == [(at + 1, {"text": each}) for at, each in enumerate(texts)]
    )
    monkeypatch.setattr(plain_text, "MAX_LINE", 1000)
    parquet.write_table(pyarrow.table({"text": [*texts, "x" * 2000, "y"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: line 21: is longer than 1000; cut it into several"):
        table.read(tmp_path / "a.parquet")


def test_a_table_takes_no_weight_that_training_refuses(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,weight\na,1\nb,1e30\n")
    with pytest.raises(ValueError, match=r"line 3: weight '1e30' is not a number from 0 to 1e\+12"):
        table.read(tmp_path / "a.csv")
    assert MAX_WEIGHT == 1e12


def test_a_table_without_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match=r"a.csv: has no rows"):
        table.read(tmp_path / "a.csv")


def test_a_url_is_no_path_and_its_password_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label\nhttps://me:secret@host/a.png,0\n")
    with pytest.raises(ValueError, match=r"line 2: image .*is a URL; download it") as caught:
        table.read(tmp_path / "a.csv")
    assert "secret" not in str(caught.value)
