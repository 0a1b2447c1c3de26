"""A fork goes on from the other's newest checkpoint under its own configuration; diff says in what runs differ."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import load
from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder
from launch.run import fork
from launch.run.creation import open_run
from launch.run.loaders import absolute, identity
from launch.run.origin import Origin, origin_of
from model.perceiver import Perceiver
from trainer.checkpoint.layout import read_weights
from trainer.checkpoint.names import MANIFEST
from trainer.run_state import Improvement, RunState

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
SMALL = ["model.num_latents=8", "model.latent_width=16", "model.self_attend.num_heads=2", "model.num_cross_attends=1"]


@pytest.fixture
def run(tmp_path: Path, shards: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    open_run(load(CONFIG, [*SMALL, f"data.shards={shards}"]), folder)
    return folder


@pytest.fixture
def trained(run: RunFolder) -> RunFolder:
    """The run with checkpoints of its network at steps 400 and 600; the one before is the better."""
    config = load(run.config_path)
    for step, score in ((400, 0.9), (600, 0.8)):
        weights = Perceiver(config.model, seed=step).state_dict()
        save(run.checkpoints_folder, step, weights, identity=identity(config), score=score)
    return run


def put(folder: RunFolder, step: int, **options: Any) -> None:  # noqa: ANN401
    """Give a run a checkpoint of its network."""
    config = load(folder.config_path)
    save(folder.checkpoints_folder, step, Perceiver(config.model, seed=step).state_dict(), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fork_has_the_new_values_and_differs_in_nothing_else(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = RunFolder(tmp_path / "new")
    assert fork.fork(run.path, new.path, ["optimizer.learning_rate=0.5"]) == 0
    assert load(new.config_path).optimizer.learning_rate == 0.5
    assert "optimizer.learning_rate: 0.002 -> 0.5" in capsys.readouterr().out
    assert fork.diff(run.path, new.path) == 1
    assert capsys.readouterr().out == "optimizer.learning_rate: 0.002 -> 0.5\n"
    with (new.code_folder / "launch" / "cli" / "main.py").open("a") as file:
        file.write("# changed\n")
    assert fork.diff(run.path, new.path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "code/launch/cli/main.py"
    assert fork.diff(run.path, run.path) == 0


def test_a_folder_that_holds_a_run_is_not_forked_into(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="holds a run already"):
        fork.fork(run.path, run.path, [])


def test_a_fork_shares_the_newest_checkpoint_and_the_old_run_keeps_its_files(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Paths are printed as they are typed from here.
    monkeypatch.chdir(tmp_path)
    before = contents(trained.path)
    new = RunFolder(tmp_path / "new")
    assert fork.fork(trained.path, new.path, ["optimizer.learning_rate=0.5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "new: starts from step 600 of run",
        "  optimizer.learning_rate: 0.002 -> 0.5",
        "train it: perceiver train new/config.yaml --run new, or on Slurm: perceiver resume new --cluster ...",
    ]
    assert contents(trained.path) == before
    assert [path.name for path in new.checkpoints_folder.iterdir()] == ["step_00000600"]
    assert origin_of(new) == Origin(str(trained.path), 600)
    assert origin_of(trained) == Origin()
    source, target = (folder.checkpoints_folder / "step_00000600" for folder in (trained, new))
    assert contents(source) == contents(target)
    assert all(path.samefile(target / path.name) for path in source.iterdir())
    # What the new run deletes is its own name of the file.
    for path in list(target.iterdir()):
        path.unlink()
    assert contents(trained.path) == before


def test_a_fork_says_that_its_moving_average_begins_anew(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fork.fork(trained.path, tmp_path / "new", ["ema.decay=0.9", "optimizer.learning_rate=0.5"])
    assert "the moving average of the weights begins anew at step 600\n" in capsys.readouterr().out
    fork.fork(tmp_path / "new", tmp_path / "same", ["optimizer.learning_rate=0.25"])
    assert "moving average" not in capsys.readouterr().out
    fork.fork(tmp_path / "new", tmp_path / "without", ["ema.decay=0"])
    assert "moving average" not in capsys.readouterr().out


def test_across_disks_the_checkpoint_is_copied(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: str, target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    new = RunFolder(tmp_path / "new")
    fork.fork(trained.path, new.path, [])
    source, target = (folder.checkpoints_folder / "step_00000600" for folder in (trained, new))
    assert contents(source) == contents(target)
    assert not any(path.samefile(target / path.name) for path in source.iterdir())


@pytest.mark.parametrize(("which", "step"), [("best", 400), ("400", 400), ("newest", 600)])
def test_a_fork_takes_the_checkpoint_that_was_named(trained: RunFolder, tmp_path: Path, which: str, step: int) -> None:
    new = RunFolder(tmp_path / "new")
    fork.fork(trained.path, new.path, [], which)
    assert attempts.newest_step(new) == step
    weights = read_weights(new.checkpoints_folder / f"step_{step:08d}")
    expected = Perceiver(load(new.config_path).model, seed=step).state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("damage", ["no manifest", "a flipped bit", "a file less"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    newest = trained.checkpoints_folder / "step_00000600"
    path = next(newest.glob("exp_avg-*"))
    match damage:
        case "no manifest":
            (newest / MANIFEST).unlink()
        case "a flipped bit":
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        case "a file less":
            path.unlink()
    new = RunFolder(tmp_path / "new")
    fork.fork(trained.path, new.path, [])
    printed = capsys.readouterr()
    assert "starts from step 400" in printed.out
    assert "skipped a damaged checkpoint" in printed.err
    assert "step_00000600" in printed.err
    assert attempts.newest_step(new) == 400


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.latent_width=32", r"of \d+ tensors differ \(\S+: \[\d+, 16\] there, \[\d+, 32\] here"),
        (
            "model.num_latents=64",
            r"1 of \d+ tensors differ \(encoder.latents.weight: \[8, 16\] there, \[64, 16\] here\)",
        ),
        ("model.layers_per_block=1", r"\[\d+.*\] there, none here"),
        ("model.layers_per_block=9", r"none there, \[\d+.*\] here"),
        ("model.self_attend.num_heads=4", "another model.self_attend.num_heads and fit by their shapes alone"),
        ("model.arrangement=at_start", "another model.arrangement and fit"),
        ("model.gelu=erf", "another model.gelu and fit"),
        ("model.num_blocks=3", "another model.num_blocks and fit"),
        (
            "data.inputs.image.height=16",
            r"learned with model\.inputs\.image\.positions\.max_resolution=\[8, 8\], not \[16, 8\], which the key",
        ),
        ("seed=5", "other data .seed was 0, is 5"),
        ("train.global_batch=128", "other data .global_batch was 64, is 128"),
        ("train.steps=599", r"step_00000600: is of step 600, after the end of the new run at train.steps=599"),
    ],
)
def test_a_fork_that_could_not_go_on_is_refused_and_leaves_nothing(
    trained: RunFolder, tmp_path: Path, override: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence) as raised:
        fork.fork(trained.path, tmp_path / "new", [override])
    assert f"\n  {override.partition('=')[0]}: " in str(raised.value)
    # What a fork can have, and what leads on where it cannot.
    assert "(a fork can have more steps, another rate or evaluation)" in str(raised.value)
    assert "(initial_weights.source=run). What was changed:" in str(raised.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "override",
    [
        "model.outputs.label.loss_weight=2",
        "model.activation_checkpointing=blocks",
        "model.cross_attend_form=plain",
        "train.steps=600",
    ],
)
def test_a_fork_may_change_what_leaves_the_weights_their_meaning(
    trained: RunFolder, tmp_path: Path, override: str
) -> None:
    assert fork.fork(trained.path, tmp_path / "new", [override]) == 0


def test_a_fork_may_read_larger_images_at_the_frequencies_that_were_learned(trained: RunFolder, tmp_path: Path) -> None:
    frequencies = "model.inputs.image.positions.max_resolution=[8,8]"
    assert fork.fork(trained.path, tmp_path / "same", [frequencies]) == 0
    assert fork.fork(trained.path, tmp_path / "new", ["data.inputs.image.height=16", frequencies]) == 0


def test_a_fork_on_shards_that_were_built_anew_is_refused_in_words_and_without_hashes(
    run: RunFolder, tmp_path: Path
) -> None:
    put(run, 600, identity={**identity(load(run.config_path)), "manifest": "f" * 64})
    with pytest.raises(ValueError, match=r"step_00000600: belongs to a run on other data \(data\.shards") as raised:
        fork.fork(run.path, tmp_path / "new", [])
    told = str(raised.value)
    assert not re.search("[0-9a-f]{16}", told.replace(str(tmp_path), ""))
    assert "hold other samples" in told
    assert not told.endswith(":"), "a list of nothing was announced"
    assert not (tmp_path / "new").exists()


def test_a_relative_path_is_that_of_where_the_fork_was_asked_for(
    run: RunFolder, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards.parent)
    new = RunFolder(tmp_path / "new")
    fork.fork(run.path, Path("new"), [f"data.shards={shards.name}"])
    monkeypatch.chdir("/")
    config = load(new.config_path)
    assert config.data.shards == str(shards)
    assert absolute(config) == config


def test_a_fork_is_on_the_disk_as_a_whole_before_it_has_its_name(
    trained: RunFolder, tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    new = RunFolder(tmp_path / "new")
    disk_calls.clear()
    fork.fork(trained.path, new.path, [])
    named = disk_calls.index(("name", str(new.path)))
    synced = {path for call, path in disk_calls[:named] if call == "sync"}
    beside = Path(next(path for path in synced if path.endswith(".new")))
    parts = [
        new.config_path,
        new.code_folder / "launch" / "cli" / "main.py",
        new.checkpoints_folder / "step_00000600" / MANIFEST,
    ]
    for part in parts:
        path = beside / part.relative_to(new.path)
        assert {str(path), str(path.parent)} <= synced
    assert ("sync", str(tmp_path)) in disk_calls[named:]


def test_a_fork_that_would_train_what_has_no_moments_is_refused(trained: RunFolder, tmp_path: Path) -> None:
    parameters = dict(Perceiver(load(trained.config_path).model, seed=0).named_parameters())
    more = sum(name.startswith("encoder.") for name in parameters) - 1
    sentence = f"other optimizer.freeze: encoder.latents.weight and {more} more were trained otherwise until here"
    with pytest.raises(ValueError, match=sentence):
        fork.fork(trained.path, tmp_path / "new", ["optimizer.freeze=[encoder.*]"])
    assert not (tmp_path / "new").exists()


def test_parameters_that_were_trained_otherwise_are_counted(run: RunFolder) -> None:
    before = load(run.config_path)
    for frozen, told in {
        "optimizer.freeze=[encoder.latents.*]": "encoder.latents.weight was trained otherwise",
        "optimizer.freeze=[decoder.means.label.logits.*]": "label.logits.weight and 1 more were trained otherwise",
        # Until the step of the checkpoint both were trained alike.
        "optimizer.freeze=[encoder.latents.*=0]": "",
        "optimizer.learning_rate=0.5": "",
    }.items():
        found = fork._other_past(before, load(run.config_path, [frozen]), 600)
        assert (told in found) if told else found == "", frozen


def test_an_optimizer_can_use_the_state_of_its_own_kind(run: RunFolder) -> None:
    muon = load(run.config_path, ["optimizer.name=muon", "train.zero_stage=0"])
    assert fork._other_optimizer(muon, muon) == ""


@pytest.mark.parametrize(
    ("stalled", "patience", "sentence"),
    [
        (3, 3, r"has 3 evaluations without a better value, which end a run with .*=3"),
        (1, 1, r"has 1 evaluation without a better value, which end a run with .*=1"),
        # With more of it, or where no evaluation ends a run, only this is left, which is of these shards.
        (3, 4, "keep_best = true, but nothing is evaluated"),
        (3, 0, "keep_best = true, but nothing is evaluated"),
    ],
)
def test_a_fork_of_a_run_that_its_evaluations_ended_needs_more_patience(
    run: RunFolder, tmp_path: Path, stalled: int, patience: int, sentence: str
) -> None:
    state = RunState(step=400, improvement=Improvement(0.5, stalled))
    put(run, 400, identity=identity(load(run.config_path)), state=state)
    with pytest.raises(ValueError, match=sentence):
        fork.fork(run.path, tmp_path / "new", ["checkpoint.keep_best=true", f"train.patience={patience}"])


@pytest.mark.parametrize(("name", "is_refused"), [("lamb", False), ("muon", True)])
def test_a_fork_to_an_optimizer_that_cannot_use_the_state_is_refused(
    trained: RunFolder, tmp_path: Path, name: str, is_refused: bool
) -> None:
    changes = [f"optimizer.name={name}", "train.zero_stage=0"]
    if not is_refused:
        assert fork.fork(trained.path, tmp_path / "new", changes) == 0
        return
    with pytest.raises(ValueError, match=r"has the state of adamw, which optimizer\.name=muon cannot use"):
        fork.fork(trained.path, tmp_path / "new", changes)
    assert not (tmp_path / "new").exists()


def test_a_fork_to_another_grid_of_as_many_places_is_refused(tmp_path: Path, shards: Path) -> None:
    run = RunFolder(tmp_path / "run")
    sizes = ["data.inputs.image.height=4", "data.inputs.image.width=16", "model.inputs.image.positions.kind=learned"]
    open_run(load(CONFIG, [*SMALL, *sizes, f"data.shards={shards}"]), run)
    put(run, 600, identity=identity(load(run.config_path)))
    with pytest.raises(
        ValueError, match=r"positions\.learned\.weight for a grid of \(4, 16\), not of \(16, 4\); leave"
    ):
        fork.fork(run.path, tmp_path / "new", ["data.inputs.image.height=16", "data.inputs.image.width=4"])
