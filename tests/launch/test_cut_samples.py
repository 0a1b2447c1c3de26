"""What is longer than a network reads is cut, counted, and told once: by eval, predict, embed, and in Python."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "trainer" / "scenarios"))
from test_predict import MODEL, MakeRun, make_run, quiet
from tiny import whole_batch

from configs.run import load
from data_shards.loading.cuts import Cuts
from launch.answers import commands
from launch.answers.commands import Asked
from launch.answers.loaded_run import load_run
from launch.run.first_cuts import FirstCuts
from launch.run.trained import evaluation

__all__ = ["make_run"]
TEXTS = f"""
data: {{inputs: {{words: {{modality: text, num_bytes: 8}}}}, lanes: 2, window: 8}}
model:
  inputs: {{words: {{}}}}
  outputs: {{label: {{kind: label, num_classes: 2}}}}{MODEL}"""
SHORT, LONG = "eight is", "nine is 9"
TOLD = "4 of 6 samples of input words were longer than 8 bytes and were cut"


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    rows = [
        {"text": LONG if number % 3 else SHORT, "label": f"class {number % 2}", "split": split}
        for split in ("train", "test")
        for number in range(6 if split == "test" else 8)
    ]
    return make_run(TEXTS, rows)


def test_every_command_counts_the_samples_that_it_cut(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = (f"{run}_shards",)
    evaluation.main(run)
    assert capsys.readouterr().out.count(TOLD) == 1
    assert json.loads((run / "evaluation.json").read_text())["cut"] == {"words": 4}
    commands.embed(Asked(run, shards, tmp_path / "a.npy", batch=4), quiet, as_json=True)
    reported = json.loads(capsys.readouterr().out)
    assert (reported["cut"], TOLD in reported["notes"]) == ({"words": 4}, True)
    load_run(run).predict(shards)
    assert capsys.readouterr().err.count(TOLD) == 1


@pytest.mark.parametrize(("world_size", "where"), [(1, ""), (2, " on rank 0")])
def test_a_training_tells_once_how_many_of_its_first_samples_it_cut(run: Path, world_size: int, where: str) -> None:
    config = load(run / "config.yaml")
    told: list[str] = []
    rows = config.train.global_batch // world_size
    cut = replace(whole_batch(0).micro_batches(16 // rows)[0], num_cut={"words": 3})
    cut = replace(cut, lengths={"words": torch.arange(rows)})
    batches = FirstCuts(lambda _: cut, config.data, 2, world_size, told.append)
    assert batches(0) is cut
    assert told == []
    for index in (1, 2, 3, 4):
        batches(index)
    of = f"6 of {2 * (rows - 1)} samples of input words were longer than 8 bytes and were cut"
    assert told == [f"training, 2 steps{where}: {of}"]


def test_ten_steps_are_counted_of_a_training_that_has_more(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, told, counted = load(run / "config.yaml"), list[str](), list[object]()
    cut = replace(whole_batch(0), num_cut={"words": 3}, lengths={"words": torch.arange(16)})
    of = Cuts.of
    monkeypatch.setattr(Cuts, "of", lambda batches: counted.append(batches) or of(batches))
    batches = FirstCuts(lambda _: cut, config.data, 200, 1, told.append)
    for index in range(25):
        batches(index)
    assert told == ["training, 10 steps: 30 of 150 samples of input words were longer than 8 bytes and were cut"]
    # The rest of the training is not looked at.
    assert len(counted) == 10


def test_what_was_cut_before_a_kill_is_counted_after_it_and_where_nothing_is_cut_nothing_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(run, (f"{run}_shards",), tmp_path / "a.jsonl", batch=2)

    def killed(done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commands.predict(asked, killed, as_json=False)
    commands.predict(asked, quiet, as_json=False)
    assert capsys.readouterr().err.count(TOLD) == 1
    assert not list(tmp_path.glob("*.unfinished"))
    (tmp_path / "new.csv").write_text(f"words\n{SHORT}\n")
    commands.predict(Asked(run, (str(tmp_path / "new.csv"),), tmp_path / "a.csv"), quiet, as_json=False)
    assert " cut" not in "".join(capsys.readouterr())
