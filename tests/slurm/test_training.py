"""Real training on a real Slurm, by the command line: DeepSpeed on several nodes, stopped, preempted and cut off."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab import Lab, perceiver

from launch import attempts
from launch.folder import RunFolder
from trainer.checkpoint_folder import read_weights

# A machine that does other things too may take minutes for what takes seconds alone.
PATIENCE_SECONDS = 240
pytestmark = pytest.mark.timeout(900)

SubmitDigits = Callable[..., tuple[str, RunFolder]]


def test_three_warned_stops_leave_the_weights_of_an_undisturbed_run(flat: Lab, submit_digits: SubmitDigits) -> None:
    length = ("train.steps=60", "train.global_batch=16", "checkpoint.save_every_steps=1000", "train.log_every_steps=5")
    undisturbed_id, undisturbed = submit_digits(flat, "undisturbed", *length, processes_per_node=2)
    job_id, stopped = submit_digits(flat, "stopped", *length, processes_per_node=2)
    for count in range(1, 4):
        reached = attempts.newest_step(stopped)
        flat.wait_for(lambda: logged_step(stopped) >= reached + 5, PATIENCE_SECONDS, f"steps of attempt {count}")  # noqa: B023
        # What Slurm does before the time limit, when the job asked for --signal=USR2@...
        flat.command("scancel", "--signal=USR2", job_id)
        flat.wait_for(lambda: attempts.current(stopped) > count, PATIENCE_SECONDS, f"attempt {count + 1}")  # noqa: B023
    for each in (undisturbed_id, job_id):
        flat.wait_for_state(each, "COMPLETED", timeout=PATIENCE_SECONDS)
    assert [attempt.status for attempt in attempts.history(stopped)] == [85, 85, 85, 0]
    assert final_weights(stopped, 60) == final_weights(undisturbed, 60)
    assert final_weights(stopped, 60) != final_weights(stopped, attempts.history(stopped)[2].last_step)


def test_a_run_that_is_preempted_loses_a_node_and_changes_its_size_ends_like_an_undisturbed_one(
    networked: Lab, submit_digits: SubmitDigits, digits_config: Path, shards: Path, tmp_path: Path
) -> None:
    length = ("train.steps=120", "train.global_batch=48", "checkpoint.save_every_steps=10")
    job_id, folder = submit_digits(networked, "run", *length, nodes=2)
    networked.wait_for(lambda: logged_step(folder) >= 20, PATIENCE_SECONDS, "steps of attempt 1")
    networked.command("sbatch", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    networked.wait_for(lambda: logged_step(folder) >= 50, PATIENCE_SECONDS, "steps of attempt 2")
    lost = attempts.history(folder)[1].nodes[1]
    networked.power_off(lost)
    networked.wait_for(lambda: attempts.current(folder) == 3, PATIENCE_SECONDS, "attempt 3")
    reached = attempts.newest_step(folder)
    networked.wait_for(lambda: logged_step(folder) >= reached + 10, PATIENCE_SECONDS, "steps of attempt 3")
    assert networked.perceiver("stop", folder.path).returncode == 0
    networked.wait_for_state(job_id, "COMPLETED", timeout=PATIENCE_SECONDS)
    assert perceiver(networked, "status", folder.path, "--json")["state"] == "stopped"

    resumed_id = perceiver(networked, "resume", folder.path, "--nodes=3", "--json")["job_id"]
    networked.wait_for_state(resumed_id, "COMPLETED", timeout=PATIENCE_SECONDS)
    history = attempts.history(folder)
    assert [len(attempt.nodes) for attempt in history] == [2, 2, 2, 3]
    assert lost not in history[2].nodes
    assert [attempt.status for attempt in history] == [None, None, 85, 0]

    alone = [digits_config, f"data.shards={shards}", *length, "--run", tmp_path / "alone"]
    assert networked.perceiver("train", *alone).returncode == 0
    disturbed, undisturbed = accuracies(folder), accuracies(RunFolder(tmp_path / "alone"))
    # Another number of ranks adds in another order, so that the last bits differ: a handful of the 359 test samples.
    assert disturbed == pytest.approx(undisturbed, abs=0.02)


def accuracies(folder: RunFolder) -> dict[str, float]:
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    return {name: value for name, value in last.items() if name.startswith("accuracy/")}


def logged_step(folder: RunFolder) -> int:
    lines = folder.metrics_path.read_text().splitlines() if folder.metrics_path.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=0)


def final_weights(folder: RunFolder, step: int) -> dict[str, bytes]:
    weights = read_weights(folder.checkpoints_folder / f"step_{step:08d}")
    return {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in weights.items()}
