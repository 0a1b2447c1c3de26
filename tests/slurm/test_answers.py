"""eval and predict with --cluster: two ranks on a real Slurm answer as one process of this machine does."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from lab import Lab
from PIL import Image

from launch.lifecycle import cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder

CONFIG = """
data: {inputs: {image: {modality: image, height: 8, width: 8}}, lanes: 2, window: 8}
model:
  inputs: {image: {}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 8, global_batch: 8}
"""
NUM_NEW = 200


class Job(NamedTuple):
    """A command that was submitted."""

    job_id: str
    log: Path


def submitted(lab: Lab, folder: Path, *words: str | Path, num_ranks: int = 1) -> Job:
    """Type a command in the folder of the profiles."""
    command = [sys.executable, "-m", "launch", *words, "--cluster", f"{num_ranks}.yaml"]
    result = lab.run(*command, cwd=folder)
    assert result.returncode == 0, result.stderr
    job, output = result.stdout.splitlines()
    return Job(job.removeprefix("submitted job "), folder / output.removeprefix("output: "))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a run, the same network as an import, the run's shards, new pictures and profiles."""
    # Here: no other test of Slurm needs torch.
    import torch
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    from configs.network import NetworkConfig
    from configs.run import load
    from data_shards.sources import table
    from launch.run.creation import open_run
    from launch.run.loaders import identity
    from model.perceiver import Perceiver

    sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
    from checkpoints import save

    random = np.random.default_rng(0)
    (tmp_path / "new").mkdir()
    for number in range(NUM_NEW):
        picture = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "new" / f"{number:03d}.png")
    rows = [
        {"image": f"new/{number:03d}.png", "label": f"class {number % 3}", "split": "train" if number < 8 else "test"}
        for number in range(19)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    (tmp_path / "run.yaml").write_text(CONFIG)
    config = load(tmp_path / "run.yaml", [f"data.shards={tmp_path}/shards"])
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    generator = torch.Generator().manual_seed(1)
    weights = Perceiver(config.model, seed=1).state_dict()
    # Heads begin with zeros, which would answer every sample alike.
    weights = {key: of + 0.2 * torch.randn(of.shape, generator=generator) for key, of in weights.items()}
    save(folder.checkpoints_folder, 8, weights, identity=identity(config))
    (tmp_path / "imported").mkdir()
    network = OmegaConf.structured(NetworkConfig(config.model))
    (tmp_path / "imported" / "config.yaml").write_text(OmegaConf.to_yaml(network))
    save_file(weights, tmp_path / "imported" / "model.safetensors")
    for nodes in (1, 2):
        profile = ClusterConfig(nodes=nodes, minutes=10, straggler_seconds=5, network_interface="lo")
        (tmp_path / f"{nodes}.yaml").write_text(cluster.dump(profile))
    return tmp_path


def test_jobs_evaluate_and_answer_as_one_process_and_one_that_was_cancelled_resumes(
    flat: Lab, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("imported", "data.shards=shards", "--split", "test")
    predict = ("predict", "run", "new", "--batch", "1", "--out", "out.jsonl")
    cancelled = submitted(flat, place, *predict, num_ranks=2)
    unfinished = place / "out.jsonl.unfinished"
    # Before anything else is submitted, which takes seconds: the job would have ended by itself.
    flat.wait_for(lambda: len(list(unfinished.glob("0*"))) > 3, "first answers")
    flat.command("scancel", cancelled.job_id)
    evaluated = submitted(flat, place, "eval", "run", "--json", num_ranks=2)
    of_import = submitted(flat, place, "eval", *other, "--json")
    # What only the job can know: that nothing can be read. Options are checked before anything is submitted.
    (place / "bad.png").write_bytes(b"no picture")
    refused = submitted(flat, place, "predict", "run", "bad.png", "--out", "bad.csv")
    flat.wait_for_state(cancelled.job_id, "CANCELLED")
    steps = ("squeue", "--noheader", "--states=COMPLETING", f"--jobs={cancelled.job_id}")
    flat.wait_for(lambda: not flat.command(*steps), "the end of its ranks")
    num_answered = len(list(unfinished.glob("0*")))
    assert (num_answered < NUM_NEW, (place / "out.jsonl").exists()) == (True, False), "it was cancelled in the middle"
    # A mark by which a part is known: what was answered before is not answered again.
    part = unfinished / "000000"
    part.write_bytes(part.read_bytes().replace(b"}\n", b"} \n"))
    resumed = submitted(flat, place, *predict, num_ranks=2)
    flat.wait_for(lambda: len(list(unfinished.glob("0*"))) != num_answered, "further answers")
    # The warning of a time limit ends no command that has nothing to save. It may have ended by itself.
    flat.run("scancel", "--signal=USR2", resumed.job_id)
    for job in (resumed, evaluated, of_import):
        flat.wait_for_state(job.job_id, "COMPLETED")
    flat.wait_for_state(refused.job_id, "FAILED")

    from launch.answers import commands
    from launch.run.trained import evaluation

    monkeypatch.chdir(place)
    for job, words in ((evaluated, (Path("run"),)), (of_import, (Path("imported"), other[1:2]))):
        assert evaluation.main(*words, split="test", as_json=True) == 0
        assert json.loads(job.log.read_text().splitlines()[-1]) == json.loads(capsys.readouterr().out)
    one = commands.Asked(Path("run"), ("new",), Path("one.jsonl"), batch=1)
    assert commands.predict(one, lambda *_: None, as_json=False) == 0
    table = (place / "out.jsonl").read_bytes()
    assert table.count(b"} \n") == 1
    assert table.replace(b"} \n", b"}\n") == (place / "one.jsonl").read_bytes()
    assert f"resumes: {num_answered} of {NUM_NEW} parts are there" in resumed.log.read_text()
    assert flat.field(refused.job_id, "ExitCode") == "2:0"
    assert refused.log.read_text().count("0 of 1 sample can be read") == 1
