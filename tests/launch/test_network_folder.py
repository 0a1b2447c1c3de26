"""`perceiver export --safetensors` writes a folder that stands for the run wherever a network is taken."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import RunConfig, load
from data_shards.sources import table
from launch.answers.loaded_run import load_run
from launch.cli.main import app
from launch.lifecycle.run_folder import RunFolder
from launch.networks.network_files import network_of
from launch.networks.network_folder import refuse_plugins, write
from launch.run import initial_weights
from launch.run.creation import open_run
from launch.run.trained.network import config_of
from launch.run.trained.preprocessing import Surroundings
from model.config.initial_weights import InitialWeightsConfig
from model.perceiver import Perceiver

CONFIG = """
data:
  inputs: {text: {modality: text, num_bytes: 12, masking: {probability: 0.25}}}
  lanes: 2
model:
  inputs: {text: {max_tokens: 12, embedding_width: 8}}
  outputs: {label: {kind: label, num_classes: 3}, text: {kind: text}}
  decoder: {min_padding: 0}
  num_latents: 4
  nested_latents: [2, 4]
  latent_width: 8
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
ema: {decay: 0.5}
train: {steps: 2, global_batch: 8}
"""


def called(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with trained weights of seed 1 and an average of seed 2."""
    rows = [{"text": f"{n} times", "label": n % 3} for n in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    (tmp_path / "text.yaml").write_text(CONFIG)
    config = load(tmp_path / "text.yaml", [f"data.shards={tmp_path}/shards"])
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    average = {name: each / 2 for name, each in Perceiver(config.model, seed=2).state_dict().items()}
    save(folder.checkpoints_folder, 2, Perceiver(config.model, seed=1).state_dict(), average=average)
    return folder


def test_a_run_as_a_folder_has_its_weights_and_its_data_and_starts_other_runs(run: RunFolder, tmp_path: Path) -> None:
    told = json.loads(called("export", run.path, tmp_path / "out", "--safetensors", "--json").splitlines()[-1])
    assert {"config.yaml", "model.safetensors", "run.yaml"} <= set(told["files"])
    before, after = network_of(run.path), network_of(tmp_path / "out")
    assert after.config == before.config
    assert all(torch.equal(after.state_dict()[name], each) for name, each in before.state_dict().items())
    # What it reads is read as the run does.
    theirs, ours = config_of(run.path), config_of(tmp_path / "out")
    assert (ours.data, ours.model, ours.seed) == (theirs.data, theirs.model, theirs.seed)
    started = replace(load(run.config_path), initial_weights=InitialWeightsConfig(source="before"))
    write(tmp_path, before.cut(2), Surroundings(), started)
    written = (tmp_path / "run.yaml").read_text()
    assert "source: before" not in written
    assert "num_latents: 2\n" in written
    (tmp_path / "one.txt").write_text("3 times")
    rows = [load_run(path).predict([tmp_path / "one.txt"]) for path in (tmp_path / "out", run.path)]
    assert rows[0] == rows[1]
    new = RunFolder(tmp_path / "new")
    new.path.mkdir()
    wanted = load(tmp_path / "text.yaml", [f"initial_weights.source={tmp_path}/out", f"data.shards={tmp_path}/shards"])
    initial_weights.keep(wanted, new)
    record = json.loads(new.initial_weights_record_path.read_text())
    assert (record["drawn"], record["unused"]) == ({}, [])
    # Once more, and with a part of its latents or other weights.
    called("export", tmp_path / "out", tmp_path / "again", "--safetensors")
    assert (tmp_path / "again" / "run.yaml").read_text() == (tmp_path / "out" / "run.yaml").read_text()
    called("export", run.path, tmp_path / "small", "--safetensors", "--latents", 2, "--weights", "ema")
    small, average = network_of(tmp_path / "small"), Perceiver(before.config, seed=2).state_dict()
    assert config_of(tmp_path / "small").model.num_latents == 2
    assert torch.equal(small.state_dict()["encoder.latents.weight"], average["encoder.latents.weight"][:2])


def test_a_folder_with_weights_lost_or_of_another_network_is_refused_by_the_name_of_its_file(
    run: RunFolder, tmp_path: Path
) -> None:
    called("export", run.path, tmp_path / "out", "--safetensors")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.latents.weight"]
    save_file(tensors, path)
    with pytest.raises(
        ValueError,
        match=r"out/model\.safetensors: not the weights of the network that .*missing encoder.latents.weight",
    ):
        network_of(tmp_path / "out")
    path.unlink()
    with pytest.raises(ValueError, match=r"out/model\.safetensors: no such file, but run\.yaml is there; copy"):
        config_of(tmp_path / "out")


def test_two_formats_at_once_and_the_network_of_a_plug_in_are_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--safetensors: is another format than --onnx; leave one of them out"):
        called("export", run.path, tmp_path / "out", "--safetensors", "--onnx")
    with pytest.raises(ValueError, match=r"--safetensors: the run needs its plug-ins \(eeg\.py\), which a folder"):
        refuse_plugins(replace(RunConfig(), plugins=("plugins/eeg.py",)))
    assert not (tmp_path / "out").exists()
