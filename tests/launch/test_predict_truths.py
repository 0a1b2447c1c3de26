"""The true targets of a table of answers, the names of its columns and classes: whatever the outputs are called."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import MODEL, MakeRun, make_run, picture, predicted

from data_shards.sources import table
from launch.answers.loaded_run import load_run

__all__ = ["make_run"]
SMALL = MODEL.replace("global_batch: 8", "global_batch: 2")
TARGETS = f"""
data:
  inputs:
    image: {{modality: image, height: 8, width: 8}}
    text: {{modality: text, num_bytes: 24, masking: {{probability: 0.3}}}}
  labels: [digit]
  values: [size, place]
  multi_label: true
  lanes: 2
  window: 8
model:
  inputs: {{image: {{}}, text: {{}}}}
  outputs:
    label: {{kind: labels, num_classes: 3}}
    digit: {{kind: label, target: digit, num_classes: 2}}
    size: {{kind: value}}
    place: {{kind: value, num_values: 2}}
    text: {{kind: text}}{SMALL}"""


def row(folder: Path, number: int) -> dict[str, Any]:
    return {
        "image": picture(folder / f"{number}.png", number),
        "text": f"words and words {number}",
        "label": ["a", "b"] if number % 2 else ["c"],
        "label.digit": "one" if number % 2 else "two",
        "value.size": None if number == 2 else number,
        "value.place": [number, None],
        "split": "test" if number < 3 else "train",
    }


def test_shards_tell_what_is_true_of_every_target(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(TARGETS, [row(tmp_path, number) for number in range(7)])
    found = predicted(run, f"{run}_shards", out=tmp_path / "out.jsonl")
    first, second, third = sorted(found, key=lambda row: row["place_true"][0])
    assert (first["label_true"], second["label_true"]) == (["c"], ["a", "b"])
    assert (first["digit_true"], second["digit_true"]) == ("two", "one")
    assert (second["size_true"], third["size_true"]) == (1.0, None)
    assert third["place_true"] == [2.0, None]
    assert second["text_true"] == "words and words 1"
    assert second["text_shown"] != second["text_true"]
    (of_file,) = predicted(run, tmp_path / "0.png", out=tmp_path / "file.jsonl")
    assert not [column for column in of_file if column.endswith("_true")], "a file brings no target"


def test_shards_without_the_targets_of_the_run_are_answered_and_true_classes_have_their_names(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(TARGETS, [row(tmp_path, number) for number in range(7)])
    others = [
        {"image": f"{n}.png", "text": "x", "label": name, "split": "test"}
        for n, name in enumerate(["z", "b", "a", "d"])
    ]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(each) + "\n" for each in others))
    table.build(tmp_path / "other.jsonl", tmp_path / "other")
    found = predicted(run, tmp_path / "other", f"{run}_shards", out=tmp_path / "out.jsonl", batch=4)
    assert sorted(row["label_true"] for row in found[:4]) == [["a"], ["b"], ["d"], ["z"]]
    assert sorted(row["label_true"] for row in found[4:]) == [["a", "b"], ["c"], ["c"]]
    assert [row["digit_true"] for row in found[:4]] == [None] * 4
    assert sorted(row["digit_true"] for row in found[4:]) == ["one", "two", "two"]
    (alone, *_) = predicted(run, tmp_path / "other", out=tmp_path / "alone.jsonl")
    assert "digit_true" not in alone
    assert set(alone["label"]) <= {"a", "b", "c"}


ODD = f"""
data:
  inputs: {{image: {{modality: image, height: 8, width: 8}}}}
  labels: [label_true, key]
  values: [shard]
  lanes: 2
  window: 8
model:
  inputs: {{image: {{}}}}
  outputs:
    label: {{kind: label, num_classes: 2}}
    label_true: {{kind: label, target: label_true, num_classes: 2}}
    key: {{kind: label, target: key, num_classes: 2}}
    shard: {{kind: value}}{SMALL}"""


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_no_output_takes_the_column_of_another_or_of_the_key(make_run: MakeRun, tmp_path: Path, suffix: str) -> None:
    rows = [
        {
            "image": picture(tmp_path / f"{n}.png", n),
            "label": f"own {n % 2}",
            "label.label_true": f"other {n % 2}",
            "label.key": f"sharp {n % 2}",
            "value.shard": n,
            "split": "test" if n < 2 else "train",
        }
        for n in range(6)
    ]
    run = make_run(ODD, rows)
    if suffix == "jsonl":
        rows = predicted(run, f"{run}_shards", out=tmp_path / f"out.{suffix}")
        (found,) = [row for row in rows if row["label.true"] == "own 0"]
        assert found["key"].startswith("0000000")
        assert found["shard"] == "test/000000.tar"
        assert found["label"].startswith("own")
        assert found["label_true"].startswith("other")
        assert (found["label.true"], found["label_true_true"]) == ("own 0", "other 0")
        assert (found["output.key"][:5], found["key_true"]) == ("sharp", "sharp 0")
        assert (type(found["output.shard"]), found["shard_true"]) == (float, 0.0)
    else:
        (found, _) = load_run(run).predict([f"{run}_shards"])
        predicted_columns = _columns(run, tmp_path / f"out.{suffix}")
        assert predicted_columns == list(found)


def _columns(run: Path, out: Path) -> list[str]:
    from launch.answers import commands

    commands.predict(commands.Asked(run, (f"{run}_shards",), out), lambda *_: None, as_json=True)
    if out.suffix == ".csv":
        return out.read_text().splitlines()[0].split(",")
    from pyarrow import parquet

    return list(parquet.read_table(out).column_names)


def test_answers_have_their_names_on_a_machine_without_the_shards(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(TARGETS, [row(tmp_path, number) for number in range(7)])
    assert json.loads((run / "class_names.json").read_text()) == {"label": ["a", "b", "c"], "digit": ["one", "two"]}
    expected = load_run(run).predict([tmp_path / "0.png"], top=3)
    shutil.rmtree(f"{run}_shards")
    loaded = load_run(run)
    assert (loaded.class_names, loaded.notes) == (("a", "b", "c"), ())
    found = loaded.predict([tmp_path / "0.png"], top=3)
    assert found == expected
    assert {found[0]["label_likely"], found[0]["label_likely_2"], found[0]["label_likely_3"]} == {"a", "b", "c"}
    (run / "class_names.json").unlink()
    assert load_run(run).predict([tmp_path / "0.png"])[0]["digit"] in {"0", "1"}
