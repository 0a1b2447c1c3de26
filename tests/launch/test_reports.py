"""report and export work on what a run left; what is missing is said in one sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from launch.cli import app
from launch.folder import RunFolder
from trainer.checkpoint_folder import Manifest, write_manifest
from trainer.run_state import RunState
from trainer.tensor_file import write

CONFIG = """
data: {image: {height: 8, width: 8}}
model:
  inputs: {image: {height: 8, width: 8}}
  outputs: {label: {num_classes: 10}}
"""
WEIGHTS = {"layer.weight": torch.ones(2, 3), "layer.bias": torch.zeros(2)}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config_path.write_text(CONFIG)
    folder.metrics_path.write_text(
        '{"kind": "train", "step": 1, "loss": 2.0}\n{"kind": "train", "step": 2, "loss": 1.0}\n'
    )
    return folder


def add_checkpoint(run: RunFolder) -> None:
    checkpoint = run.checkpoints_folder / "step_00000002"
    checkpoint.mkdir()
    files = {"weight-00000-of-00001.safetensors": write(checkpoint / "weight-00000-of-00001.safetensors", WEIGHTS)}
    write_manifest(checkpoint, Manifest(RunState(step=2), engine={}, identity={}, world_size=1, files=files))


def test_report_writes_one_page_into_the_run(run: RunFolder) -> None:
    result = CliRunner().invoke(app, ["report", str(run.path), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert told["attempts"] == 0
    assert "train: loss" in Path(told["report"]).read_text()


def test_export_copies_the_weights_and_overwrites_nothing(run: RunFolder, tmp_path: Path) -> None:
    add_checkpoint(run)
    out = tmp_path / "weights.safetensors"
    result = CliRunner().invoke(app, ["export", str(run.path), str(out), "--json"])
    assert json.loads(result.output)["step"] == 2
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in load_file(out).items())
    again = CliRunner().invoke(app, ["export", str(run.path), str(out)])
    assert isinstance(again.exception, ValueError)
    assert "exists; choose another name" in str(again.exception)


@pytest.mark.parametrize("command", ["export", "attention"])
def test_a_run_without_a_checkpoint_is_told_to_train_further(run: RunFolder, tmp_path: Path, command: str) -> None:
    arguments = [command, str(run.path), *([str(tmp_path / "out")] if command == "export" else [])]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, ValueError)
    assert "no complete checkpoint yet; train further" in str(error)


def test_chaos_wants_shards_and_a_new_folder(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    error = CliRunner().invoke(app, ["chaos", str(config)]).exception
    assert isinstance(error, ValueError)
    assert "perceiver data build" in str(error)
    error = (
        CliRunner().invoke(app, ["chaos", str(config), f"data.shards={tmp_path}", "--keep", str(tmp_path)]).exception
    )
    assert isinstance(error, ValueError)
    assert "--keep needs a new folder" in str(error)
