"""What takes a job away and gives it back: preemption, requeue, cancellation. Torch-free; the ranks are the probe."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from lab import Lab, steps_of

from launch.lifecycle import attempts
from launch.lifecycle.restart_policy import RestartConfig
from launch.lifecycle.run_folder import RunFolder

Make = Callable[..., RunFolder]
Submit = Callable[..., str]


def test_a_job_runs_to_its_end_in_a_folder_of_any_name(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run('it\'s a "run" with $paces', steps=5)
    job_id = submit(flat, folder, nodes=2, processes_per_node=2)
    flat.wait_for_state(job_id, "COMPLETED")
    (attempt,) = attempts.history(folder)
    assert (attempt.status, attempt.last_step, attempt.job_id) == (0, 5, job_id)
    assert [record.status for record in attempts.ranks(folder, 1)] == [0, 0, 0, 0]


def test_preempted_jobs_save_and_go_on_when_they_are_warned(flat: Lab, probe_run: Make, submit: Submit) -> None:
    assert signal.SIGUSR2 in _preempt_and_finish(flat, probe_run, submit)


def test_preempted_jobs_save_and_go_on_when_only_term_comes(unwarned: Lab, probe_run: Make, submit: Submit) -> None:
    assert set(_preempt_and_finish(unwarned, probe_run, submit)) == {signal.SIGTERM}


def test_a_job_that_is_requeued_by_hand_saves_and_goes_on(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=10, holds_at=6)
    job_id = submit(flat, folder, nodes=2)
    flat.wait_for(lambda: attempts.newest_step(folder) == 5, "first steps")
    # What a killed submitit leaves, after which its own jobs cannot requeue any more.
    (folder.logs_folder / f"{job_id}_submitted.pkl.save_tmp").touch()
    flat.command("scontrol", "requeue", job_id)
    flat.wait_for_state(job_id, "COMPLETED")
    _assert_every_step_once(folder, 10)


def test_only_the_element_of_an_array_that_was_taken_away_or_failed_goes_on(
    flat: Lab, probe_run: Make, submit_array: Callable[..., list[str]]
) -> None:
    folders = [probe_run(name, steps=10, holds_at=6) for name in ("requeued", "untouched", "failed")]
    job_ids = submit_array(flat, *folders, restarts=RestartConfig(exclude_after=1))
    flat.wait_for(lambda: all(attempts.newest_step(folder) == 5 for folder in folders), "first steps")
    # By the number that its own environment has, the last element is the whole array.
    assert flat.field(job_ids[2], "JobId") == job_ids[2].partition("_")[0]
    flat.command("scontrol", "requeue", job_ids[0])
    (victim,) = attempts.ranks(folders[2], 1)
    os.kill(victim.pid, signal.SIGKILL)
    for number in (0, 2):
        flat.wait_for_state(job_ids[number], "COMPLETED")
        _assert_every_step_once(folders[number], 10)
    assert attempts.current(folders[1]) == 1
    (folders[1].path / "go_on").touch()
    flat.wait_for_state(job_ids[1], "COMPLETED")
    for job_id, folder, status in zip(job_ids, folders, (85, 0, 137), strict=True):
        assert [attempt.job_id for attempt in attempts.history(folder)] == [job_id] * (1 + (status != 0))
        assert attempts.history(folder)[0].status in (status, None)
    assert [flat.field(job_id, "ExcNodeList") for job_id in job_ids] == ["(null)", "(null)", victim.node]


def test_a_cancelled_job_ends_and_does_not_come_back(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=10, holds_at=6)
    job_id = submit(flat, folder)
    flat.wait_for(lambda: attempts.newest_step(folder) == 5, "first steps")
    flat.command("scancel", job_id)
    flat.wait_for_state(job_id, "CANCELLED")
    flat.wait_for(lambda: flat.field(job_id, "EndTime") != "Unknown", "end")
    assert flat.field(job_id, "Restarts") == "0"
    assert len(attempts.history(folder)) == 1


def test_a_requeued_job_runs_the_code_it_was_submitted_with(
    flat: Lab, probe_run: Make, submit: Submit, tmp_path: Path
) -> None:
    folder = probe_run(steps=10, holds_at=6)
    job_id = submit(flat, folder)
    flat.wait_for(lambda: attempts.newest_step(folder) == 5, "first steps")
    edited = tmp_path / "source" / "launch" / "run" / "composition.py"
    edited.write_text(edited.read_text().replace("CONSTANT = 1", "CONSTANT = 2"))
    flat.command("scontrol", "requeue", job_id)
    after_the_edit = probe_run("another", steps=5)
    flat.wait_for_state(submit(flat, after_the_edit), "COMPLETED")
    flat.wait_for_state(job_id, "COMPLETED")
    assert {line["constant"] for line in steps_of(folder)} == {1}
    assert {line["constant"] for line in steps_of(after_the_edit)} == {2}


def test_bad_input_is_not_tried_twice(flat: Lab, probe_run: Make, submit: Submit) -> None:
    job_id = submit(flat, probe_run(steps=5, status=2))
    flat.wait_for_state(job_id, "FAILED")
    assert flat.field(job_id, "Restarts") == "0"


def test_orderly_stops_have_a_limit(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=5, status=85)
    job_id = submit(flat, folder, restarts=RestartConfig(max_requeues=1))
    flat.wait_for_state(job_id, "FAILED")
    flat.wait_for(lambda: attempts.history(folder)[-1].status, "end")
    assert [attempt.status for attempt in attempts.history(folder)] == [85, 85]
    assert "restart 2 of 1" in flat.perceiver("logs", folder.path, "--batch").stdout


def _preempt_and_finish(lab: Lab, probe_run: Make, submit: Submit) -> list[int]:
    """Preempt one job without and one with a grace time; return the signals that reached their first ranks."""
    jobs = {}
    for partition in ("main", "grace"):
        folder = probe_run(partition, steps=10, holds_at=6)
        jobs[submit(lab, folder, nodes=2, processes_per_node=2, partition=partition)] = folder
    lab.wait_for(lambda: all(attempts.newest_step(folder) == 5 for folder in jobs.values()), "first steps")
    # The whole cluster for a moment, so that the preempted jobs have to leave and may come back at once.
    lab.command("sbatch", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    told = []
    for job_id, folder in jobs.items():
        lab.wait_for_state(job_id, "COMPLETED")
        first, second = attempts.history(folder)
        assert first.last_step == second.first_step == 6
        told += _assert_every_step_once(folder, 10)
    return told


def _assert_every_step_once(folder: RunFolder, steps: int) -> list[int]:
    """The ranks saved where they stopped, so that no step was lost and none was done twice; return their signals."""
    lines = steps_of(folder)
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    return [signal for line in lines for signal in line["told"]]
