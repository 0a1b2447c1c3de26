"""Supervised runs on this machine through the real command: a sweep without Slurm, and --json."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm_start import finished

pytestmark = pytest.mark.slow
LENGTH = ("train.steps=4", "checkpoint.save_every_steps=2")


def perceiver(*words: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-m", "launch", *map(str, words)]
    return finished(command, warm_children=True, env=environment)


def test_a_sweep_trains_its_runs_one_after_the_other_and_the_same_command_resumes_it(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    run, folder = make_run("unused"), tmp_path / "rates"
    words = ("sweep", run.config, f"data.shards={run.shards}", "optimizer.learning_rate=1e-3,2e-3", *LENGTH)
    for _ in range(2):
        result = perceiver(*words, "--run", folder, "--procs", 1, "--json")
        assert result.returncode == 0, result.stderr
        names = [f"learning_rate={rate}" for rate in ("1e-3", "2e-3")]
        assert json.loads(result.stdout) == [
            {"outcome": "finished", "step": 4, "run": str(folder / name)} for name in names
        ]
    states = json.loads(perceiver("status", folder, "--json").stdout)
    assert [state["state"] for state in states] == ["finished", "finished"]
    assert states[0]["loss"] != states[1]["loss"]


def test_supervised_training_tells_how_it_ended_as_one_object(make_run: Callable[..., Any]) -> None:
    run = make_run("run")
    result = perceiver(
        "train", run.config, f"data.shards={run.shards}", *LENGTH, "--run", run.folder, "--procs", 2, "--json"
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"outcome": "finished", "step": 4, "run": str(run.folder)}


def test_a_sweep_is_given_a_cluster_or_processes(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run("unused")
    result = perceiver("sweep", run.config, "seed=1,2", "--run", tmp_path / "seeds")
    assert (result.returncode, result.stderr.count("give one of --cluster and --procs")) == (2, 1)
