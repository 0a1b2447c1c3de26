"""What a user types, on a real Slurm: sweep, stop, cancel, status, logs, doctor."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab, perceiver

from launch.lifecycle import attempts, cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.schedulers import submission

SubmitDigits = Callable[..., tuple[str, RunFolder]]
MAX_TASKS = "from launch.slurm import queue; print(queue.max_array_tasks())"
SHORT = ("train.steps=6", "train.global_batch=16", "train.log_every_steps=2", "train.evaluate_every_steps=0")


def test_a_sweep_is_an_array_with_a_run_for_every_combination(
    flat: Lab, digits_config: Path, shards: Path, tmp_path: Path
) -> None:
    values = ("optimizer.learning_rate=1e-3,2e-3", f"data.shards={shards}", *SHORT)
    profile = _profile(tmp_path)
    runs = perceiver(flat, "sweep", digits_config, *values, "--run", tmp_path / "rates", "--cluster", profile, "--json")
    assert [Path(run["run"]).name for run in runs] == ["learning_rate=1e-3", "learning_rate=2e-3"]
    for run in runs:
        flat.wait_for_state(run["job_id"], "COMPLETED")
    states = perceiver(flat, "status", tmp_path / "rates", "--json")
    assert [(state["state"], state["step"]) for state in states] == [("finished", 6)] * 2
    assert states[0]["loss"] != states[1]["loss"]
    assert flat.run(sys.executable, "-c", MAX_TASKS).stdout.strip() == "1001", "Slurm's default"
    again = flat.perceiver("sweep", digits_config, *values, "--run", tmp_path / "rates", "--cluster", profile)
    assert (again.returncode, "2 of 2 runs are finished and not submitted" in again.stderr) == (0, True)
    resumed = flat.perceiver("resume", runs[0]["run"])
    assert (resumed.returncode, "perceiver fork" in resumed.stderr) == (2, True)
    for run in runs:
        assert f"of {Path(run['run']).name}: job" in flat.perceiver("logs", run["run"], "--batch").stdout


def test_a_run_that_waits_says_why_is_not_submitted_twice_and_is_stopped_at_once(
    flat: Lab, submit_digits: SubmitDigits
) -> None:
    job_id, folder = submit_digits(flat, "waits", *SHORT, sbatch={"begin": "now+1hour"})
    state = perceiver(flat, "status", folder.path, "--json")
    assert (state["state"], state["reason"], state["job_id"]) == ("pending", "BeginTime", job_id)
    assert f"job {job_id} of this run is PENDING" in flat.perceiver("resume", folder.path).stderr
    flat.stop_controller()
    state = perceiver(flat, "status", folder.path, "--json")
    flat.start_controller()
    assert state["state"] == "unknown"
    assert "Unable to contact slurm controller" in state["reason"]
    flat.wait_for(lambda: flat.field(job_id, "JobState") == "PENDING", "the controller")
    assert flat.perceiver("stop", folder.path).returncode == 0
    flat.wait_for_state(job_id, "CANCELLED")
    assert perceiver(flat, "status", folder.path, "--json")["state"] == "stopped"


def test_a_job_id_that_slurm_gave_to_another_job_is_not_taken_for_the_run(
    flat: Lab, submit_digits: SubmitDigits
) -> None:
    job_id, folder = submit_digits(flat, "reused", *SHORT, sbatch={"begin": "now+1hour"})
    record = json.loads(folder.submission_path.read_text())
    folder.submission_path.write_text(json.dumps(record | {"job_name": "somebody-else"}))
    assert perceiver(flat, "status", folder.path, "--json")["state"] == "unfinished"
    folder.submission_path.write_text(json.dumps(record))
    assert flat.perceiver("cancel", folder.path).returncode == 0
    flat.wait_for_state(job_id, "CANCELLED")


def test_what_slurm_refuses_is_told_in_its_own_words_and_leaves_no_submission(
    flat: Lab, digits_config: Path, shards: Path, tmp_path: Path
) -> None:
    profile = _profile(tmp_path, partition="nowhere")
    words = (digits_config, f"data.shards={shards}", *SHORT, "--run", tmp_path / "run", "--cluster", profile)
    result = flat.perceiver("submit", *words)
    assert result.returncode == 2
    assert "invalid partition specified: nowhere" in result.stderr
    assert submission.read(RunFolder(tmp_path / "run")) is None


def test_the_doctor_finds_a_healthy_cluster_well(flat: Lab, tmp_path: Path) -> None:
    profile = _profile(tmp_path, nodes=2)
    findings = perceiver(flat, "doctor", "--cluster", profile, "--folder", tmp_path, "--json")
    assert [finding for finding in findings if not finding["is_well"]] == []
    words = {finding["name"]: finding["words"] for finding in findings}
    assert words["ranks"].startswith("2 ranks on 127.0.0.11, 127.0.0.12 met at 127.0.0.11")
    assert words["signals"] == "USR2 reaches every rank"
    assert not list(tmp_path.glob(".doctor-*"))


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_doctor_that_is_ended_tells_why_it_waits_and_leaves_neither_job_nor_folder(
    number: signal.Signals, flat: Lab, tmp_path: Path
) -> None:
    profile = _profile(tmp_path, minutes=2880, sbatch={"begin": "now+1hour"})
    folder, errors = tmp_path / "runs", tmp_path / "errors"
    folder.mkdir()
    command = [sys.executable, "-m", "launch", "doctor", "--cluster", str(profile), "--folder", str(folder)]
    jobs = ("squeue", "--noheader", "--format=%j %l")
    with errors.open("w") as file, subprocess.Popen(command, env=flat.environment, stdout=file, stderr=file) as doctor:
        flat.wait_for(lambda: "is PENDING (BeginTime)" in errors.read_text(), "the job")
        assert [line.split()[1] for line in flat.command(*jobs).splitlines() if line.startswith("doctor-")] == ["10:00"]
        doctor.send_signal(number)
        assert doctor.wait(120) == 128 + number
    assert "ok  versions" in errors.read_text()
    assert "doctor-" not in flat.command(*jobs)
    assert list(folder.iterdir()) == []


def test_logs_are_those_of_the_rank_and_attempt_that_was_asked_for(
    flat: Lab, probe_run: Callable[..., RunFolder], submit: Callable[..., str]
) -> None:
    folder = probe_run(steps=5, status=1)
    job_id = submit(flat, folder, processes_per_node=2)
    flat.wait_for_state(job_id, "FAILED")
    flat.wait_for(lambda: len(attempts.history(folder)) == 3, "three attempts")
    assert "no such log" in flat.perceiver("logs", folder.path, "--rank", "7").stderr
    assert flat.perceiver("logs", folder.path, "--rank", "1", "--attempt", "2").returncode == 0
    assert "failure 3 of 3" in flat.perceiver("logs", folder.path, "--batch").stdout


def _profile(folder: Path, **changes: object) -> Path:
    path = folder / "profile.yaml"
    path.write_text(cluster.dump(ClusterConfig(**{"network_interface": "lo", **changes})))
    return path


def test_training_that_is_started_inside_of_an_allocation_is_one_run_or_refused(
    flat: Lab, digits_config: Path, shards: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "launch", "train", digits_config, f"data.shards={shards}", *SHORT, "--run"]
    folder = RunFolder(tmp_path / "run")
    refused = flat.run("srun", "--ntasks=2", "--nodes=1", *words, folder.path, timeout=280)
    # This cluster kills the other as soon as one has left.
    assert refused.returncode in (2, 143)
    assert "srun started 2 processes of this command" in refused.stderr
    assert not folder.path.exists()
    trained = flat.run("srun", "--ntasks=1", *words, folder.path, "--procs", "2", timeout=280)
    assert trained.returncode == 0, trained.stderr
    assert [record.status for record in attempts.ranks(folder, 1)] == [0, 0]
    assert perceiver(flat, "status", folder.path, "--json")["state"] == "finished"
