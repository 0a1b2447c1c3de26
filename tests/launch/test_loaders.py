"""What is evaluated is the split that is named or one of the usual names, and where there is none, a run says so."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from configs.run import RunConfig, load
from data_shards import manifest
from data_shards.sources import table
from launch import evaluate
from launch.folder import RunFolder
from launch.loaders import eval_split, label_names
from launch.open_run import open_run

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
Configured = Callable[..., RunConfig]


@pytest.fixture
def configured(shards: Path) -> Configured:
    """Return a configuration whose shards have these splits."""

    def configure(splits: Sequence[str], *overrides: str) -> RunConfig:
        there = manifest.read(shards)
        manifest.write(replace(there, splits=dict.fromkeys(splits, there.splits["train"])), shards)
        return load(DIGITS, [f"data.shards={shards}", *overrides])

    return configure


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "test", "val"], "test"),
        (["train", "val"], "val"),
        (["validation", "train"], "validation"),
        (["train", "Valid"], "Valid"),
        (["dev", "train", "TEST"], "TEST"),
        (["train", "Validation", "dev"], "Validation"),
    ],
)
def test_the_split_with_the_first_of_the_usual_names_is_evaluated(
    configured: Configured, splits: list[str], expected: str
) -> None:
    config = configured(splits, "train.evaluate_every_steps=0")
    assert eval_split(config) == (expected, f"split {expected!r} is evaluated at the end")


def test_samples_of_several_labels_are_refused_where_one_is_answered(tmp_path: Path) -> None:
    lines = [{"text": "a", "label": [0, 1]}, {"text": "b", "label": [1]}]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table.build(tmp_path / "table.jsonl", tmp_path / "shards")
    overrides = [f"data.shards={tmp_path}/shards", "model.outputs.label.num_classes=2"]
    with pytest.raises(ValueError, match=r"shards: samples have several labels, .* set data\.multi_label=true"):
        label_names(load(DIGITS, overrides))
    several = ["data.multi_label=true", "model.outputs.label.multi_label=true"]
    assert label_names(load(DIGITS, [*overrides, *several])) == ("0", "1")


def test_the_split_that_is_named_is_evaluated(configured: Configured) -> None:
    splits = ["train", "test", "unseen"]
    config = configured(splits, "data.eval_split=unseen", "train.evaluate_every_steps=50")
    assert eval_split(config) == ("unseen", "split 'unseen' is evaluated every 50 steps and at the end")
    assert "which is trained on too" in eval_split(configured(splits, "data.eval_split=train"))[1]


def test_a_run_that_evaluates_nothing_says_why(configured: Configured) -> None:
    split, sentence = eval_split(configured(["train", "holdout"], "train.evaluate_every_steps=10"))
    assert split == ""
    assert sentence.startswith("nothing is evaluated: ")
    assert "'train', 'holdout', and none of test, val, validation, valid, dev" in sentence
    assert "data.eval_split" in sentence
    mixed = load(DIGITS, ["data.datasets.a.shards=somewhere"])
    assert "data.shards is not set" in eval_split(mixed)[1]


def test_a_named_split_that_is_not_there_and_a_best_checkpoint_by_no_evaluation_are_refused(
    configured: Configured, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"data\.eval_split = 'val': .*has no split 'val', only 'train', 'test'"):
        open_run(configured(["train", "test"], "data.eval_split=val"), folder)
    with pytest.raises(ValueError, match=r"checkpoint\.keep_best = true, but nothing is evaluated: .*keep_best=false"):
        open_run(configured(["train"], "checkpoint.keep_best=true"), folder)
    assert not folder.path.exists()


def test_eval_names_the_splits_that_there_are(configured: Configured, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(configured(["train", "holdout"]), folder)
    with pytest.raises(ValueError, match=r"'train', 'holdout', and none of .*--split"):
        evaluate.main(folder.path)
    with pytest.raises(ValueError, match=r"has no split 'val', only 'train', 'holdout'"):
        evaluate.main(folder.path, split="val")
