"""Each part of a starting configuration follows from what the samples hold, and its sizes from how many they are."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer, models

sys.path.insert(0, str(Path(__file__).parent))
from test_init_kinds import Sample, adopted, array, picture, record

from data_shards.format.annotations import Records
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split, write
from launch.planning.starting_config import _Found, _lines, _unit, _yaml, starting_config

WORDS = {"txt": b"some words"}
FLOW = b"PIEH" + np.array([12, 8], "<i4").tobytes() + np.ones((8, 12, 2), np.float32).tobytes()
PAIR = {"first.png": picture("png"), "second.png": picture("png"), "flo": FLOW}


def split(num_samples: int) -> Split:
    return Split(Shards.of([ShardEntry("x.tar", num_samples, 100, "0" * 64, "0" * 64, {})]), (num_samples,))


@pytest.mark.parametrize(
    ("num_samples", "sizes", "batch", "steps", "epochs"),
    [
        # Two hundred steps at the least, and twenty epochs of more samples.
        (4, (32, 64), (2, 1, 20, 40), 200, "100 epochs"),
        (640, (32, 64), (64, 8, 20, 40), 200, "20 epochs"),
        (4_999, (32, 64), (64, 8, 156, 312), 1_562, "20 epochs"),
        (5_000, (64, 128), (64, 8, 156, 312), 1_562, "20 epochs"),
        (99_999, (64, 128), (64, 8, 1_000, 6_249), 31_249, "20 epochs"),
        (100_000, (128, 256), (64, 8, 1_000, 6_250), 31_250, "20 epochs"),
        (640_000, (128, 256), (64, 8, 1_000, 20_000), 100_000, "10 epochs"),
    ],
)
def test_sizes_and_steps_follow_from_the_number_of_samples(
    num_samples: int, sizes: tuple[int, int], batch: tuple[int, int, int, int], steps: int, epochs: str
) -> None:
    shards = Manifest({"train": split(num_samples), "Test": split(2)}, ())
    lines = list(_lines(Path("in"), "runs/b", shards, 3, _Found()))
    assert lines[0] == f"# For in, by 3 of {num_samples} training samples. Change what you like."
    assert lines[2] == "#   perceiver train FILE --run runs/b"
    assert f"  steps: {steps} # {epochs}" in lines
    assert "  eval_split: Test # 2 samples" in lines
    found = yaml.safe_load("\n".join(lines))
    assert (found["model"]["num_latents"], found["model"]["latent_width"]) == sizes
    assert found["train"] == {"steps": steps, "global_batch": batch[0], "evaluate_every_steps": batch[3]}
    assert found["data"]["lanes"] == batch[1]
    assert found["optimizer"]["warmup_steps"] == batch[2]
    assert found["checkpoint"] == {"save_every_steps": batch[3]}


def test_a_network_says_which_classes_it_tells_apart_and_whether_something_is_hidden() -> None:
    shards = Manifest({"train": split(4), "other": split(1)}, ("a: b", "c\nd"), named_labels={"size": ("s", "m")})
    outputs: dict[str, dict[str, Any]] = {
        "label": {"kind": "label", "num_classes": 2},
        "size_": {"kind": "label", "target": "size", "num_classes": 2},
        "age": {"kind": "value", "num_values": 1},
    }
    lines = list(_lines(Path("in"), "b", shards, 3, _Found(outputs=outputs, remarks=["one\n is out"])))
    assert [line for line in lines if "kind:" in line] == [
        "    label: {kind: label, num_classes: 2} # a: b, 'c\\nd'",
        "    size_: {kind: label, target: size, num_classes: 2} # s, m",
        "    age: {kind: value, num_values: 1}",
    ]
    assert "# one is out" in lines
    assert "  # No split to evaluate among 'train', 'other'; eval_split names another one." in lines
    assert not any("mask_tokens" in line or "evaluate" in line.partition("#")[0] for line in lines)
    hidden = _Found(outputs={**outputs, "image": {"kind": "masked", "fraction": 0.75}})
    assert "  mask_tokens: true" in list(_lines(Path("in"), "b", shards, 3, hidden))


def test_a_value_is_one_line_as_it_was_given() -> None:
    long = ["x" * 70, "y" * 70]
    assert _yaml({"b": "\u00e9", "a": long}) == f"{{b: \u00e9, a: [{long[0]}, {long[1]}]}}"
    assert (_yaml("a"), _yaml("a: b"), _yaml([])) == ("a", "'a: b'", "[]")


@pytest.mark.parametrize(
    ("numbers", "offset", "scale"),
    [
        ([(1.0,), (), (4.0, float("nan"))], 2.5, 1.5),
        ([(1.0, 2.0), (3.0, 6.0)], 3.0, 1.871),
        # What never varies, and what no sample has.
        ([(7.0,), (7.0,)], 7.0, 1.0),
        ([(), (float("inf"),)], 0.0, 1.0),
    ],
)
def test_the_unit_of_a_value_is_of_its_finite_numbers(numbers: list[Any], offset: float, scale: float) -> None:
    assert _unit(numbers) == {"offset": offset, "scale": scale}


Make = Callable[[int], Sample]
TEXT = {"modality": "text", "num_bytes": 16}
KINDS: dict[str, tuple[Make, Records | None, dict[str, Any], dict[str, Any], list[str]]] = {
    "motion beside other things": (
        lambda _: {**PAIR, **WORDS},
        None,
        {"inputs": {"flow": {"modality": "flow", "height": 8, "width": 12}}},
        {"flow": {"kind": "flow"}},
        ["# text beside the pairs of frames: left out"],
    ),
    "motion alone": (
        lambda _: PAIR,
        None,
        {"inputs": {"flow": {"modality": "flow", "height": 8, "width": 12}}},
        {"flow": {"kind": "flow"}},
        [],
    ),
    "a text alone": (
        lambda _: WORDS,
        None,
        {"inputs": {"text": {**TEXT, "masking": {"probability": 0.15}}}},
        {"text": {"kind": "text"}},
        [],
    ),
    "several labels in one sample": (
        lambda n: {**WORDS, **(record(tags=[0, 1]) if n % 2 else {})},
        Records(labels="tags"),
        {"inputs": {"text": TEXT}, "multi_label": True},
        {"label": {"kind": "labels", "num_classes": 2}},
        [],
    ),
    "one label each": (
        lambda n: {**WORDS, "cls": b"%d" % (n % 2)},
        None,
        {"inputs": {"text": TEXT}},
        {"label": {"kind": "label", "num_classes": 2}},
        [],
    ),
    "further labels, one of them with one class": (
        lambda n: {**WORDS, **record(named={"size": n % 2, "a one": 0, "b+": n % 3})},
        Records(named_labels="named"),
        {"inputs": {"text": TEXT}, "labels": ["b+", "size"]},
        {
            "b_": {"kind": "label", "target": "b+", "num_classes": 3},
            "size": {"kind": "label", "target": "size", "num_classes": 2},
        },
        ["# a one is left out: it has the class '0' alone"],
    ),
    "values": (
        lambda n: {**WORDS, **record(v={"a (b)": n, "c": 7})},
        Records(values="v"),
        {"inputs": {"text": TEXT}, "values": ["a (b)", "c"]},
        {
            "a _b_": {"kind": "value", "target": "a (b)", "num_values": 1, "offset": 3.5, "scale": 2.291},
            "c": {"kind": "value", "num_values": 1, "offset": 7.0, "scale": 1.0},
        },
        [],
    ),
    "an array without a number before others": (
        lambda n: {"a.npy": array([[np.nan] * 4] * 16), "b.npy": array(np.ones((16, 4)) * n), "z.txt": b"some words"},
        None,
        {
            "inputs": {
                "z": {"modality": "text", "members": "z.txt", "num_bytes": 16, "masking": {"probability": 0.15}},
                "b": {"modality": "array", "members": "b.npy", "shape": [16, 4], "standardize": True},
            }
        },
        {"z": {"kind": "text"}},
        [
            "# a is left out: array: not one finite value; points: point cloud has NaN or infinite "
            "coordinates in 16 of 16 points"
        ],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_has_what_the_samples_hold_and_says_what_it_leaves_out(tmp_path: Path, kind: str) -> None:
    make, records, data, outputs, remarks = KINDS[kind]
    folder = adopted(tmp_path / "shards", make, records)
    text = starting_config(folder)
    found = yaml.safe_load(text)
    assert found["data"] == {"shards": str(folder), "lanes": 1, **data}
    assert found["model"]["outputs"] == outputs
    # In the order of the modalities, whatever they are called.
    assert list(found["model"]["inputs"]) == list(found["data"]["inputs"]) == list(data["inputs"])
    assert [line for line in text.splitlines() if line.startswith("#")][3:] == remarks
    assert text.endswith("\n")


def test_a_split_to_train_on_that_is_empty_is_none(tmp_path: Path) -> None:
    empty = Split(Shards.of([]), ())
    write(Manifest({"train": empty, "test": empty}, ()), tmp_path)
    with pytest.raises(ValueError, match="has no split train, which a run trains on; it has test, train; build"):
        starting_config(tmp_path)


def test_sizes_are_found_by_some_samples_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_init_kinds.COUNT", 70)
    folder = adopted(tmp_path / "shards", lambda _: WORDS, None)
    assert starting_config(folder).startswith(f"# For {folder}, by 64 of 70 training samples. Change what you like.\n")


def test_a_tokenizer_reads_the_texts_beside_other_inputs(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    Tokenizer(models.WordLevel({"[PAD]": 0, "[MASK]": 1}, unk_token="[PAD]")).save(str(path))
    make = lambda n: {**WORDS, "png": picture("png"), "cls": b"%d" % (n % 2)}  # noqa: E731
    found = yaml.safe_load(starting_config(adopted(tmp_path / "shards", make, None), tokenizer=str(path)))
    assert found["data"]["inputs"]["text"] == {"modality": "text", "tokenizer": str(path), "num_tokens": 16}
    assert list(found["data"]["inputs"]) == ["image", "text"]
