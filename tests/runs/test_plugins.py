"""Plug-ins as a user runs them: trained, killed, resumed with equal bits, and faults as one sentence."""

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from warm_start import finished

from data_shards.building import adoption
from launch.cli.main import app

MakeRun = Callable[..., Any]
EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
FAILING = """
from perceiver_trainer import RunSink

class Failing(RunSink):
    def write(self, kind, record):
        if kind == "train":
            raise KeyError("none")
"""


def with_plugin(run: Any, path: Path) -> Path:  # noqa: ANN401  # of conftest.py
    """Give the run a configuration that names a copy of the plug-in."""
    shutil.copy(path, run.config.parent)
    config: Path = run.config.with_name(f"{path.stem}.yaml")
    config.write_text(f"plugins: [{path.name}]\n{run.config.read_text()}")
    return config


READS = """
plugins: [reads.py]
data: {inputs: {read: {modality: read, num_bases: 40}}, lanes: 8, window: 64, num_threads: 1}
model:
  inputs: {read: {}}
  outputs: {label: {kind: label, num_classes: 4}}
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
optimizer: {learning_rate: 0.005, warmup_steps: 5}
train: {steps: 40, global_batch: 32, log_every_steps: 1}
checkpoint: {save_every_steps: 5, save_every_minutes: 0}
"""
EEG = """
plugins: [eeg.py]
data: {inputs: {eeg: {modality: eeg}}, lanes: 4, window: 16}
model:
  inputs: {eeg: {patch: 8, positions: {num_bands: 8}}}
  outputs: {label: {kind: label, num_classes: 2}}
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
optimizer: {learning_rate: 0.003}
train: {steps: 40, global_batch: 16, log_every_steps: 1}
"""


@pytest.mark.slow
def test_a_sink_has_every_step_once_after_a_kill_and_changes_no_bit(make_run: MakeRun) -> None:
    plain = make_run("plain")
    config = with_plugin(plain, EXAMPLES / "csv_sink.py")
    killed = make_run("killed", config=config)
    assert plain.finish("train.steps=20")[0][0] == 0
    killed.kill_after_checkpoint(step=10, rank=0)
    status, _, told = killed.finish()[0]
    assert status == 0, told
    rows = [row.split(",") for row in (killed.folder / "losses.csv").read_text().splitlines()]
    assert {int(step): float(loss) for step, loss in rows} == killed.losses()
    assert len(rows) == 40
    assert all(killed.losses()[step] == loss for step, loss in plain.losses().items() if step <= 2)
    command = [sys.executable, "-m", "launch", "eval", str(killed.folder)]
    refused = finished(command)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "--trust-code" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "after", "trace"),
    [
        ("noise", "{modality: image, height: 8", "{modality: noisy_image, height: 8", ""),
        ("focal", "label: {kind: label,", "label: {kind: focal,", "label/confidence"),
        ("momentum", "\ntrain:", "\noptimizer: {name: momentum, options: {momentum: 0.8}}\ntrain:", ""),
    ],
)
def test_a_plugin_resumes_after_a_kill_with_equal_bits_and_is_reported(
    make_run: MakeRun, name: str, before: str, after: str, trace: str
) -> None:
    config = with_plugin(make_run("none"), EXAMPLES / f"{name}.py")
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after).replace("steps: 40", "steps: 40, evaluate_every_steps: 20"))
    undisturbed, killed = make_run("undisturbed", config=config), make_run("killed", config=config)
    assert undisturbed.finish()[0][0] == 0
    killed.kill_after_checkpoint(step=5, rank=0)
    status, _, told = killed.finish()[0]
    assert status == 0, told
    assert killed.losses() == undisturbed.losses()
    assert killed.weights() == undisturbed.weights()
    assert trace in (killed.folder / "metrics.jsonl").read_text()
    report = [sys.executable, "-m", "launch", "report", str(killed.folder)]
    finished(report).check_returncode()
    page = (killed.folder / "report.html").read_text()
    assert f"code/plugins/{name}.py" in page
    assert trace.rpartition("/")[2] in page


@pytest.fixture
def eeg(tmp_path: Path) -> Path:
    """Recordings of two rhythms as tars of another program, adopted."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 64), ("test", 16)):
        (tmp_path / "eeg" / split).mkdir(parents=True)
        with tarfile.open(tmp_path / "eeg" / split / "000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(count):
                wave = np.sin(2 * np.pi * (4 + 5 * (number % 2)) * np.arange(300) / 64 + numbers.uniform(0, 6))
                content = io.BytesIO()
                np.save(content, (wave[:, None] + numbers.normal(0, 0.5, (300, 8))).astype(np.float32))
                for suffix, data in (("eeg.npy", content.getvalue()), ("cls", str(number % 2).encode())):
                    header = tarfile.TarInfo(f"{split}{number:04d}.{suffix}")
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))
    adoption.index(tmp_path / "eeg")
    return tmp_path / "eeg"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("warm_starts")
def test_a_modality_of_ones_own_is_learned_and_survives_a_campaign_with_equal_bits(eeg: Path, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "eeg.py", tmp_path)
    config = tmp_path / "eeg.yaml"
    config.write_text(EEG)
    words = f"chaos {config} data.shards={eeg} --faults 2 --keep {tmp_path}/campaign --json".split()
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["survived"] == report["bit_equal"] == report["faults"] >= 2
    rows = map(json.loads, (tmp_path / "campaign" / "run_1" / "run" / "metrics.jsonl").read_text().splitlines())
    accuracy = [row["label/accuracy"] for row in rows if row["kind"] == "evaluation"]
    assert accuracy[-1] > 0.9  # the classes are equally many
    verify = [sys.executable, "-m", "launch", "data", "verify", str(eeg), "--config", str(config), "--jobs", "1"]
    found = finished(verify)
    found.check_returncode()
    assert "80 samples, 0 bad" in found.stdout


@pytest.fixture
def reads(tmp_path: Path) -> Path:
    """Reads of DNA, one a file: of which base there are the most in good quality is their class."""
    numbers = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    rows = ["member.read,label,split"]
    for number in range(160):
        chances = np.full(4, 0.2)
        chances[number % 4] = 0.4
        bases = "".join(numbers.choice(list("ACGT"), 40, p=chances))
        (tmp_path / "raw" / f"{number}.fastq").write_text(f"@{number}\n{bases}\n+\n{'I' * 40}\n")
        rows.append(f"raw/{number}.fastq,{'ACGT'[number % 4]},{'train' if number < 128 else 'test'}")
    table = tmp_path / "reads.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.mark.slow
def test_tokens_of_ones_own_are_learned_and_resume_after_a_kill_with_equal_bits(
    make_run: MakeRun, reads: Path, tmp_path: Path
) -> None:
    shutil.copy(EXAMPLES / "reads.py", tmp_path)
    config, shards = tmp_path / "reads.yaml", tmp_path / "shards"
    config.write_text(READS)
    words = f"data build table {reads} {shards} --config {config} --jobs 1".split()
    built = CliRunner().invoke(app, words, catch_exceptions=False)
    assert built.exit_code == 0, built.output
    undisturbed, killed = (make_run(name, config=config, shards=shards) for name in ("undisturbed", "killed"))
    assert undisturbed.finish()[0][0] == 0
    killed.kill_after_checkpoint(step=10, rank=0)
    status, _, told = killed.finish()[0]
    assert status == 0, told
    assert killed.losses() == undisturbed.losses()
    assert killed.weights() == undisturbed.weights()
    rows = map(json.loads, (killed.folder / "metrics.jsonl").read_text().splitlines())
    accuracy = [row["label/accuracy"] for row in rows if row["kind"] == "evaluation"]
    assert accuracy[-1] > 0.5  # of four classes that are equally many


@pytest.mark.slow
def test_a_sink_that_fails_is_told_with_its_line_and_costs_no_step(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "failing.py").write_text(FAILING)
    run = make_run("run")
    run = make_run("run", config=with_plugin(run, tmp_path / "own" / "failing.py"))
    status, _, told = run.finish("train.steps=6")[0]
    assert status == 0, told
    assert f"Failing failed ({run.config.parent}/failing.py:7: in write, KeyError: 'none'); the run continues" in told
    assert "Failing failed 6 times in this start" in told
    assert len(run.losses()) == 6
