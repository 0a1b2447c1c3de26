"""Numbers that are to be answered, from the cells of a table or the fields of a record to a batch."""

import json
import math
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from data_shards.building import adoption
from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.format.annotations import MAX_VALUE, Records, notes
from data_shards.loading import streams
from data_shards.modalities.kinds.text import TextConfig
from data_shards.sources import table

CONFIG = DataConfig(inputs={"text": TextConfig(num_bytes=8)}, lanes=1, window=4, values=("age", "place"))


def built(tmp_path: Path, *rows: dict[str, object], **options: object) -> Path:
    lines = [{"text": f"row {number}", **row} for number, row in enumerate(rows)]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table.build(tmp_path / "table.jsonl", tmp_path / "shards", **options)
    return tmp_path / "shards"


def values(shards: Path, config: DataConfig = CONFIG, split: str = "train") -> dict[str, list[list[float]]]:
    """The values of every sample by name, in the order of their keys."""
    config = DataConfig(**{**vars(config), "shards": str(shards)})
    loader, num_batches = streams.eval_loader(config, split, global_batch=4, rank=0, world_size=1)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in config.values}
    with loader:
        for index in range(num_batches):
            batch = loader(index)
            for name in config.values:
                assert batch.targets[name].dtype.is_floating_point
                of_key = zip(batch.keys, batch.targets[name].tolist(), strict=True)
                found[name] |= {key: numbers for key, numbers in of_key if key}
    return {name: [of_key[key] for key in sorted(of_key)] for name, of_key in found.items()}


def test_cells_become_numbers_and_empty_cells_are_not_known(tmp_path: Path) -> None:
    told: list[str] = []
    rows = (
        {"value.age": 31, "value.place": [0.5, 2]},
        {"value.age": "7.5", "value.place": "[1, nan]"},
        {"value.age": "", "value.place": None},
        {"value.age": "1e3"},
    )
    shards = built(tmp_path, *rows, tell=told.append)
    assert manifest.read(shards).values == {"age": 1, "place": 2}
    found = values(shards)
    np.testing.assert_equal(found["age"], [[31.0], [7.5], [math.nan], [1000.0]])
    np.testing.assert_equal(found["place"], [[0.5, 2.0], [1.0, math.nan], [math.nan] * 2, [math.nan] * 2])
    assert told == ["value.age: 1 of 4 rows have none", "value.place: 2 of 4 rows have none"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"value.age": "old"}], r"line 1: value\.age 'old' is no number; write a number, or a list such as"),
        ([{"value.age": True}], r"line 1: value\.age True is no number"),
        ([{"value.age": {"a": 1}}], r"line 1: value\.age \{'a': 1\} is no number"),
        ([{"value.age": 1}, {"value.age": [1, "x"]}], r"line 2: value\.age \[1, 'x'\] is no number"),
        ([{"value.age": "inf"}], r"line 1: value\.age 'inf' is out of range; values are up to 1e\+30"),
        ([{"value.age": 1}, {"value.age": [1, 2]}], r"line 2: value 'age' has 2 numbers, on line 1 it has 1; write as"),
        ([{"value.a b": 1}], r"unknown columns value\.a b; a table has .*label\.NAME, value\.NAME"),
    ],
)
def test_what_is_no_number_is_refused_with_its_line(
    tmp_path: Path, rows: list[dict[str, object]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        built(tmp_path, *rows)


def test_a_value_that_the_shards_do_not_have_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    shards = built(tmp_path, {"value.age": 1})
    with pytest.raises(
        ValueError, match=r"has no value 'place' \(values: age\); take it out of data\.values, or build"
    ):
        values(shards)


def record(fields: object) -> dict[str, bytes]:
    return {"json": json.dumps(fields).encode()}


def test_values_of_others_come_from_the_field_that_is_named_or_from_the_whole_record() -> None:
    fields = {"age": 3, "height": [1, None], "name": "x", "more": {"age": 4.5}}
    assert notes(record(fields), Records(values="more")).values == {"age": (4.5,)}
    whole = notes(record(fields), Records(values=".")).values
    np.testing.assert_equal(whole, {"age": (3.0,), "height": (1.0, math.nan)})
    assert notes(record(fields), Records(values="."), None, ["age"]).values == {"age": (3.0,)}
    assert notes(record(fields), Records(labels="age")).values == {}
    assert notes(record({"values": {"age": None}})).values == {}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"age": "old"}, r"\.json: value age is no number: 'old'; write a number, or null for none"),
        ({"age": True}, r"\.json: value age is no number: True"),
        ({"age": []}, r"\.json: value age is no number: \[\]"),
        ({"age": math.inf}, r"\.json: value age is out of range"),
        ({"age": [0, -2 * MAX_VALUE]}, r"\.json: value age is out of range"),
        ([1, 2], r"\.json: values are not numbers by name: values is \[1, 2\]"),
    ],
)
def test_a_record_whose_value_is_no_number_is_a_bad_sample(given: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        notes(record({"values": given}))


def test_adopted_tars_give_values_and_a_sample_with_too_many_numbers_is_bad(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "0.tar", "w") as tar:
        for number, age in enumerate((1.5, [2, 3], None, 4)):
            members = {"txt": b"text", "json": json.dumps({"age": age}).encode()}
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{number}.{extension}")
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    found = adoption.index(tmp_path, records=Records(values="."))
    assert found.values == {"age": 2}
    config = DataConfig(**{**vars(CONFIG), "values": ("age",)})
    with pytest.raises(ValueError, match="value 'age' has 1 number, the manifest says 2"):
        values(tmp_path, config)
