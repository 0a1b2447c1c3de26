"""Real training on a real Slurm, by the command line: DeepSpeed on several nodes, stopped, preempted and cut off."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab, perceiver

from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder

SubmitDigits = Callable[..., tuple[str, RunFolder]]
PACE = Path(__file__).parent / "probe" / "pace.py"
SAVED = 10
WARNED_SECONDS = 120


def test_time_limits_and_lost_ranks_leave_the_weights_of_an_undisturbed_run(
    flat: Lab, submit_digits: SubmitDigits
) -> None:
    """Three runs of two ranks: one is left alone, one meets two time limits, one has a rank killed, then one hang."""
    length = ("train.steps=1000000", "train.global_batch=16", "train.log_every_steps=2", "train.evaluate_every_steps=0")
    saves = (f"checkpoint.save_every_steps={SAVED}", f"checkpoint.keep_every_steps={SAVED}", "health.hang_seconds=10")
    small = ("model.num_cross_attends=1", "model.num_blocks=1", "model.layers_per_block=1", f"plugins=[{PACE}]")
    asked = (*length, *saves, *small)
    broken_id, broken = submit_digits(flat, "broken", *asked, processes_per_node=2, straggler_seconds=5)
    limited_id, limited = submit_digits(
        flat, "limited", *asked, processes_per_node=2, minutes=60, signal_seconds=WARNED_SECONDS
    )
    undisturbed_id, undisturbed = submit_digits(flat, "undisturbed", *asked, processes_per_node=2)
    for count, number in enumerate((signal.SIGKILL, signal.SIGSTOP), start=1):
        _wait_for_steps(flat, broken, count)
        os.kill(attempts.ranks(broken, count)[1].pid, number)
        _wait_for_steps(flat, limited, count)
        _limit(flat, limited_id, count)
    for job_id, folder in ((broken_id, broken), (limited_id, limited)):
        _wait_for_steps(flat, folder, 3)
        _cancel(flat, job_id, folder)
    steps = {folder: _newest_saved(folder) for folder in (broken, limited)}
    flat.wait_for(lambda: _newest_saved(undisturbed) >= max(steps.values()), f"steps {steps}")
    _cancel(flat, undisturbed_id, undisturbed)
    assert len(attempts.history(undisturbed)) == 1
    assert [attempt.failed for attempt in attempts.history(broken)[:2]] == [True, True]
    assert [attempt.status for attempt in attempts.history(limited)[:2]] == [85, 85]
    for folder, step in steps.items():
        assert saved_tensors(folder, step) == saved_tensors(undisturbed, step) != {}
        assert saved_tensors(folder, step) != saved_tensors(undisturbed, step - SAVED)


def test_a_run_that_is_preempted_loses_a_node_and_changes_its_size_ends_like_an_undisturbed_one(
    networked: Lab, submit_digits: SubmitDigits, digits_config: Path, shards: Path, tmp_path: Path
) -> None:
    # Long enough for the run not to be over before the command that stops it has begun.
    length = ("train.steps=240", "train.global_batch=48", "checkpoint.save_every_steps=10")
    job_id, folder = submit_digits(networked, "run", *length, nodes=2)
    networked.wait_for(lambda: logged_step(folder) >= 20, "steps of attempt 1")
    networked.command("sbatch", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    networked.wait_for(lambda: logged_step(folder) >= 50, "steps of attempt 2")
    lost = attempts.history(folder)[1].nodes[1]
    # Its rank lives on there, as a ghost.
    networked.cut(lost)
    # Trains while the cluster waits for the node.
    alone = RunFolder(tmp_path / "alone")
    words = ["train", digits_config, f"data.shards={shards}", *length, "--run", alone.path]
    with networked.start_perceiver(*words) as training:
        networked.wait_for(lambda: attempts.current(folder) == 3, "attempt 3")
        reached = attempts.newest_step(folder)
        networked.wait_for(lambda: logged_step(folder) >= reached + 10, "steps of attempt 3")
        assert networked.perceiver("stop", folder.path).returncode == 0
        networked.wait_for_state(job_id, "COMPLETED")
        assert perceiver(networked, "status", folder.path, "--json")["state"] == "stopped"

        resumed_id = perceiver(networked, "resume", folder.path, "--nodes=3", "--json")["job_id"]
        networked.wait_for_state(resumed_id, "COMPLETED")
        history = attempts.history(folder)
        assert [len(attempt.nodes) for attempt in history] == [2, 2, 2, 3]
        assert lost not in history[2].nodes
        # Slurm takes the first two away; the second may end by itself first, when the connection to its lost rank
        # breaks.
        assert history[0].status is None
        assert history[1].status in (None, 1)
        assert [attempt.status for attempt in history[2:]] == [85, 0]
        assert training.wait(600) == 0

    disturbed, undisturbed = accuracies(folder), accuracies(alone)
    # Another number of ranks adds in another order, so that the last bits differ: a handful of the 359 test samples.
    assert disturbed == pytest.approx(undisturbed, abs=0.02)


def _cancel(lab: Lab, job_id: str, folder: RunFolder) -> None:
    assert lab.perceiver("cancel", folder.path).returncode == 0
    lab.wait_for_state(job_id, "CANCELLED")


def _limit(lab: Lab, job_id: str, count: int) -> None:
    """Let the job meet its time limit, and give it a far one when it has been requeued so many times."""
    # Slurm looks every 30 s, and warns where the limit is nearer than the signal's time and 30 s.
    lab.command("scontrol", "update", f"JobId={job_id}", "EndTime=now+90")
    lab.wait_for(lambda: lab.field(job_id, "Restarts") == str(count), f"time limit {count}")
    # Refused while Slurm has not put the job away.
    far = ("scontrol", "update", f"JobId={job_id}", "TimeLimit=60")
    lab.wait_for(lambda: lab.command(*far) == "", f"a new time limit for {job_id}")


def _wait_for_steps(lab: Lab, folder: RunFolder, attempt: int) -> None:
    """Return once the attempt has saved a step of its own that is not the run's first."""

    def has_saved() -> bool:
        history = attempts.history(folder)
        # An attempt's folder is there a moment before what it says.
        known = len(history) >= attempt and history[attempt - 1].nodes
        return bool(known) and _newest_saved(folder) > max(SAVED, history[attempt - 1].first_step)

    lab.wait_for(has_saved, f"steps of attempt {attempt} of {folder.path.name}")


def _newest_saved(folder: RunFolder) -> int:
    """Return the newest step of those that are saved without a reason."""
    steps = [int(path.name.removeprefix("step_")) for path in folder.checkpoints_folder.glob("step_*")]
    return max((step for step in steps if step % SAVED == 0), default=0)


def accuracies(folder: RunFolder) -> dict[str, float]:
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    return {name: value for name, value in last.items() if name.startswith("label/accuracy")}


def logged_step(folder: RunFolder) -> int:
    lines = folder.metrics_path.read_text().splitlines() if folder.metrics_path.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=0)


def saved_tensors(folder: RunFolder, step: int) -> dict[str, bytes]:
    """Return the files of weights and moments of each rank."""
    checkpoint = folder.checkpoints_folder / f"step_{step:08d}"
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}
