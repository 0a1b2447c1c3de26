"""Real training on a real Slurm, by the command line: DeepSpeed on several nodes, stopped, preempted and cut off."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab import Lab, perceiver

from launch.lifecycle import attempts
from launch.lifecycle.run_folder import RunFolder
from trainer.checkpoint.layout import read_weights

SubmitDigits = Callable[..., tuple[str, RunFolder]]


def test_time_limits_and_lost_ranks_leave_the_weights_of_an_undisturbed_run(
    flat: Lab, submit_digits: SubmitDigits
) -> None:
    """Three runs of two ranks: one is left alone, one meets three time limits, one has a rank killed, then one hang."""
    length = ("train.steps=1000000", "train.global_batch=16", "train.log_every_steps=5", "train.evaluate_every_steps=0")
    saves = ("checkpoint.save_every_steps=50", "checkpoint.keep_every_steps=50", "health.hang_seconds=10")
    # Slurm looks every 30 s and warns where the limit is nearer than the signal's time and 30 s: after 20 to 50 s here.
    limited_id, limited = submit_digits(
        flat, "limited", *length, *saves, processes_per_node=2, minutes=2, signal_seconds=70
    )
    broken_id, broken = submit_digits(flat, "broken", *length, *saves, processes_per_node=2)
    for count, number in enumerate((signal.SIGKILL, signal.SIGSTOP), start=1):
        _wait_for_steps(flat, broken, count)
        os.kill(attempts.ranks(broken, count)[1].pid, number)
    _wait_for_steps(flat, broken, 3)
    _cancel(flat, broken_id, broken)
    # While the other run was broken it may have met more of them.
    flat.wait_for(lambda: len(_ends_after_steps(limited)) >= 3, "three limits", timeout=600)
    assert set(_ends_after_steps(limited)) == {85}
    _wait_for_steps(flat, limited, 1 + sum(attempt.ended_at is not None for attempt in attempts.history(limited)))
    _cancel(flat, limited_id, limited)

    # Only now, so that the others' starts need not share the processors with it.
    undisturbed_id, undisturbed = submit_digits(flat, "undisturbed", *length, *saves, processes_per_node=2)
    steps = {folder: _newest_multiple(folder) for folder in (broken, limited)}
    flat.wait_for(lambda: _newest_multiple(undisturbed) >= max(steps.values()), f"steps {steps}")
    _cancel(flat, undisturbed_id, undisturbed)
    assert len(attempts.history(undisturbed)) == 1
    for folder, step in steps.items():
        assert final_weights(folder, step) == final_weights(undisturbed, step)
        assert final_weights(folder, step) != final_weights(undisturbed, step - 50)


def test_a_run_that_is_preempted_loses_a_node_and_changes_its_size_ends_like_an_undisturbed_one(
    networked: Lab, submit_digits: SubmitDigits, digits_config: Path, shards: Path, tmp_path: Path
) -> None:
    length = ("train.steps=160", "train.global_batch=48", "checkpoint.save_every_steps=10")
    job_id, folder = submit_digits(networked, "run", *length, nodes=2)
    networked.wait_for(lambda: logged_step(folder) >= 20, "steps of attempt 1")
    networked.command("sbatch", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    networked.wait_for(lambda: logged_step(folder) >= 50, "steps of attempt 2")
    lost = attempts.history(folder)[1].nodes[1]
    # Its rank lives on there, as a ghost.
    networked.cut(lost)
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
    # Slurm takes the first two away; the second may end by itself first, when the connection to its lost rank breaks.
    assert history[0].status is None
    assert history[1].status in (None, 1)
    assert [attempt.status for attempt in history[2:]] == [85, 0]

    alone = [digits_config, f"data.shards={shards}", *length, "--run", tmp_path / "alone"]
    assert networked.perceiver("train", *alone).returncode == 0
    disturbed, undisturbed = accuracies(folder), accuracies(RunFolder(tmp_path / "alone"))
    # Another number of ranks adds in another order, so that the last bits differ: a handful of the 359 test samples.
    assert disturbed == pytest.approx(undisturbed, abs=0.02)


def _cancel(lab: Lab, job_id: str, folder: RunFolder) -> None:
    assert lab.perceiver("cancel", folder.path).returncode == 0
    lab.wait_for_state(job_id, "CANCELLED")


def _wait_for_steps(lab: Lab, folder: RunFolder, attempt: int) -> None:
    """Return once the attempt has saved a multiple of 50 steps of its own that is not the run's first."""

    def has_saved() -> bool:
        history = attempts.history(folder)
        # An attempt's folder is there a moment before what it says.
        known = len(history) >= attempt and history[attempt - 1].nodes
        return bool(known) and _newest_multiple(folder) > max(50, history[attempt - 1].first_step)

    lab.wait_for(has_saved, f"steps of attempt {attempt} of {folder.path.name}")


def _ends_after_steps(folder: RunFolder) -> list[int | None]:
    """Return the status of each attempt that ended after steps of its own; on a slow machine some begin too late."""
    ended = (attempt for attempt in attempts.history(folder) if attempt.ended_at is not None)
    return [attempt.status for attempt in ended if attempt.last_step > attempt.first_step]


def _newest_multiple(folder: RunFolder) -> int:
    steps = [int(path.name.removeprefix("step_")) for path in folder.checkpoints_folder.glob("step_*")]
    return max((step for step in steps if step % 50 == 0), default=0)


def accuracies(folder: RunFolder) -> dict[str, float]:
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    return {name: value for name, value in last.items() if name.startswith("label/accuracy")}


def logged_step(folder: RunFolder) -> int:
    lines = folder.metrics_path.read_text().splitlines() if folder.metrics_path.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=0)


def final_weights(folder: RunFolder, step: int) -> dict[str, bytes]:
    weights = read_weights(folder.checkpoints_folder / f"step_{step:08d}")
    return {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in weights.items()}
