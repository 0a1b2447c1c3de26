"""What the submitting shell says of another job, or asks of Slurm's commands, decides nothing about a run's job."""

import json
import os
import sys
from pathlib import Path

import pytest

from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import door, inherited, queue

RECORD = f"""#!{sys.executable}
import json, os, pathlib, sys
here = pathlib.Path(__file__)
here.with_suffix(".json").write_text(json.dumps(dict(os.environ)))
sys.stdin.read()
print(here.with_suffix(".answer").read_text())
"""
FOREIGN = {
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_EXPORT": "NONE",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_JOB_ID": "7",
    "SLURM_EXPORT_ENV": "NONE",
    "SRUN_CPUS_PER_TASK": "9",
    "SQUEUE_PARTITION": "other",
    "SCANCEL_INTERACTIVE": "1",
    "PERCEIVER_ATTEMPT": "3",
    "CUDA_VISIBLE_DEVICES": "0",
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell inside of an allocation, and stand-ins for Slurm's commands that write down what they are given."""
    commands = tmp_path / "commands"
    commands.mkdir()
    answers = {"sbatch": "12;lab", "squeue": "RUNNING|None|n1|name"}
    for name, answer in answers.items():
        (commands / name).write_text(RECORD)
        (commands / name).chmod(0o755)
        (commands / f"{name}.answer").write_text(answer)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    for name, value in {**FOREIGN, "SLURM_CONF": "/etc/ours.conf", "MINE": "yes"}.items():
        monkeypatch.setenv(name, value)
    return commands


def test_a_job_is_asked_for_without_the_options_and_the_allocation_of_the_shell(shell: Path, tmp_path: Path) -> None:
    assert door.submit([RunFolder(tmp_path / "run")], ClusterConfig(), job_name="job") == ["12"]
    seen = json.loads((shell / "sbatch.json").read_text())
    assert not seen.keys() & FOREIGN.keys()
    assert (seen["SLURM_CONF"], seen["MINE"]) == ("/etc/ours.conf", "yes")
    assert (tmp_path / "run" / "logs" / "12_submission.sh").is_file()


def test_the_users_filters_of_squeue_do_not_make_a_job_seem_gone(shell: Path) -> None:
    assert queue.find("12", "name") == queue.Job("RUNNING", "", "n1")
    assert "SQUEUE_PARTITION" not in json.loads((shell / "squeue.json").read_text())


def test_what_is_not_passed_on_is_named_and_nothing_is_said_where_all_is() -> None:
    environment = {**FOREIGN, "SLURM_CONF": "/etc/ours.conf", "MINE": "yes"}
    assert inherited.sentence({"MINE": "yes", "CUDA_VISIBLE_DEVICES": "0"}) == ""
    told = f"note: the profile decides; not passed on from this shell: {', '.join(sorted(FOREIGN))}\n"
    assert inherited.sentence(environment) == told


def test_ranks_that_are_started_here_keep_the_devices_of_the_allocation_and_nothing_else_of_it() -> None:
    kept = inherited.of_local_ranks({**FOREIGN, "SLURM_PROCID": "0", "SLURMD_NODENAME": "n1", "MINE": "yes"})
    assert kept == {"CUDA_VISIBLE_DEVICES": "0", "MINE": "yes"}


def test_ranks_look_for_the_code_of_the_run_where_it_lies() -> None:
    shell = {"PYTHONSAFEPATH": "1", "PYTHONPATH": "/a"}
    assert inherited.of_local_ranks(shell) == inherited.passed(shell) == {"PYTHONPATH": "/a"}
