"""The report is made of what a run left; what is missing is said in one sentence."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.cli import app
from launch.folder import RunFolder

CONFIG = """
data: {image: {height: 8, width: 8}}
model:
  inputs: {image: {height: 8, width: 8}}
  outputs: {label: {num_classes: 10}}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config_path.write_text(CONFIG)
    folder.metrics_path.write_text(
        '{"kind": "train", "step": 1, "loss": 2.0}\n{"kind": "train", "step": 2, "loss": 1.0}\n'
    )
    return folder


def test_report_writes_one_page_into_the_run(run: RunFolder) -> None:
    result = CliRunner().invoke(app, ["report", str(run.path), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert told["attempts"] == 0
    assert "train: loss" in Path(told["report"]).read_text()


def test_a_config_of_another_encoding_is_reported_all_the_same(run: RunFolder) -> None:
    run.config_path.write_bytes(b"# caf\xe9\n" + run.config_path.read_bytes())
    assert CliRunner().invoke(app, ["report", str(run.path)]).exit_code == 0
    assert "# caf\ufffd" in (run.path / "report.html").read_text()


def test_attention_of_a_run_without_a_checkpoint_is_refused(run: RunFolder) -> None:
    error = CliRunner().invoke(app, ["attention", str(run.path)]).exception
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
