"""What breaks a job: ranks that are killed or hang, nodes that are lost, ghosts of a lost node. Torch-free."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from lab import Lab, steps_of

from launch.lifecycle import attempts
from launch.lifecycle.restart_policy import RestartConfig
from launch.lifecycle.run_folder import RunFolder

Make = Callable[..., RunFolder]
Submit = Callable[..., str]


def test_a_rank_that_is_killed_or_hangs_ends_the_job_everywhere_and_it_goes_on(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    jobs = {number: probe_run(number.name, steps=20, holds_at=6) for number in (signal.SIGKILL, signal.SIGSTOP)}
    job_ids = [submit(flat, folder, nodes=2, processes_per_node=2) for folder in jobs.values()]
    victims = {}
    for number, folder in jobs.items():
        flat.wait_for(lambda: attempts.newest_step(folder) == 5, "first steps")  # noqa: B023
        victims[number] = attempts.ranks(folder, 1)[3]
        os.kill(victims[number].pid, number)
        (folder.path / "go_on").touch()
    for job_id in job_ids:
        flat.wait_for_state(job_id, "COMPLETED")
    for number, folder in jobs.items():
        first, second = attempts.history(folder)
        assert first.failed
        assert first.failed_nodes == (victims[number].node,)
        assert second.last_step == 20


def test_a_node_on_which_attempts_fail_is_left_out(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=5, broken_node="127.0.0.11")
    job_id = submit(flat, folder, nodes=2, restarts=RestartConfig(exclude_after=2))
    flat.wait_for_state(job_id, "COMPLETED")
    assert [attempt.failed_nodes for attempt in attempts.history(folder)] == [("127.0.0.11",)] * 2 + [()]
    assert flat.field(job_id, "ExcNodeList") == "127.0.0.11"


def test_a_job_that_needs_all_nodes_is_kept_from_none_and_given_up_in_place_of_waiting_for_good(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    folder = probe_run(steps=5, broken_node="127.0.0.11")
    job_id = submit(flat, folder, nodes=4, restarts=RestartConfig(max_failures=3, exclude_after=1))
    flat.wait_for_state(job_id, "FAILED")
    flat.wait_for(lambda: attempts.history(folder)[-1].status, "end")
    assert [attempt.failed_nodes for attempt in attempts.history(folder)] == [("127.0.0.11",)] * 3
    assert flat.field(job_id, "ExcNodeList") == "(null)"
    assert "cannot do without 127.0.0.11" in flat.perceiver("logs", folder.path, "--batch").stdout


def test_a_run_that_only_fails_is_given_up(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=5, status=1)
    job_id = submit(flat, folder, restarts=RestartConfig(max_failures=2, exclude_after=0))
    flat.wait_for_state(job_id, "FAILED")
    flat.wait_for(lambda: attempts.history(folder)[-1].status, "end")
    assert [attempt.status for attempt in attempts.history(folder)] == [1, 1]


def test_a_controller_that_is_away_is_asked_again_for_the_requeue(
    flat: Lab, probe_run: Make, submit: Submit, tmp_path: Path
) -> None:
    folder = probe_run(steps=10, holds_at=6)
    # Slurm itself tells the end of a step again only after a minute, so the controller leaves just after it.
    patient = tmp_path / "python"
    wait = f"case $3 in end) until [ -e {tmp_path}/may_end ]; do sleep 0.1; done; esac"
    patient.write_text(f'#!/bin/sh\n{wait}\nexec {sys.executable} "$@"\n')
    patient.chmod(0o755)
    job_id = submit(flat, folder, host_python=str(patient))
    flat.wait_for(lambda: attempts.newest_step(folder) == 5, "first steps")
    os.kill(attempts.ranks(folder, 1)[0].pid, signal.SIGKILL)
    steps = ("squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i")
    flat.wait_for(lambda: f"{job_id}.0" not in flat.command(*steps).split(), "the end of the ranks")
    flat.stop_controller()
    (tmp_path / "may_end").touch()
    log = folder.logs_folder / f"{job_id}_0_log.out"
    flat.wait_for(lambda: f"scontrol requeue {job_id}: " in log.read_text(), "a refused requeue")
    flat.start_controller()
    flat.wait_for_state(job_id, "COMPLETED")
    assert [attempt.failed for attempt in attempts.history(folder)] == [True, False]


def test_a_requeue_that_slurm_will_never_grant_is_not_waited_for(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=10, holds_at=6)
    job_id = submit(flat, folder)
    flat.wait_for(lambda: attempts.newest_step(folder) == 5, "first steps")
    flat.command("scontrol", "update", f"JobId={job_id}", "Requeue=0")
    os.kill(attempts.ranks(folder, 1)[0].pid, signal.SIGKILL)
    flat.wait_for_state(job_id, "FAILED")
    assert "presently disabled" in flat.perceiver("logs", folder.path, "--batch").stdout


def test_two_jobs_on_a_node_and_their_restarts_meet_at_different_ports(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    here = {"sbatch": {"nodelist": "127.0.0.12"}}
    jobs = {submit(flat, folder, **here): folder for folder in (probe_run(name, steps=10, holds_at=6) for name in "ab")}
    flat.wait_for(lambda: all(attempts.newest_step(folder) == 5 for folder in jobs.values()), "first steps of both")
    first, second = jobs
    flat.command("scontrol", "requeue", first)
    flat.wait_for(lambda: attempts.newest_step(jobs[first]) == 10, "the end of the requeued job")
    flat.command("scontrol", "requeue", second)
    for job_id in jobs:
        flat.wait_for_state(job_id, "COMPLETED")
    one, two = ({line["MASTER_PORT"] for line in steps_of(folder)} for folder in jobs.values())
    assert (len(one), len(two)) == (2, 2)
    assert not one & two


def test_lost_nodes_are_replaced_and_their_ghosts_do_not_write(networked: Lab, probe_run: Make, submit: Submit) -> None:
    """Lose the nodes of three jobs, each with the rank that writes the checkpoints and with the batch script."""
    ways = {"cut": networked.cut, "daemon": networked.kill_slurmd, "power": networked.power_off}
    jobs = {way: probe_run(way, steps=60, holds_at=6) for way in ways}
    job_ids = {way: submit(networked, folder, processes_per_node=2) for way, folder in jobs.items()}
    lost = {}
    for way, folder in jobs.items():
        networked.wait_for(lambda: attempts.newest_step(folder) == 5, "first steps")  # noqa: B023
        lost[way] = attempts.history(folder)[0].nodes[0]
    assert len(set(lost.values())) == 3
    for way, lose in ways.items():
        lose(lost[way])
    for way, folder in jobs.items():
        networked.wait_for(lambda: attempts.current(folder) == 2, "the second attempt")  # noqa: B023
        # The ranks of the first that still live would go on now, were they let.
        (folder.path / "go_on").touch()
        networked.wait_for_state(job_ids[way], "COMPLETED")
        second = attempts.history(folder)[1]
        assert second.nodes[0] not in lost.values()
        steps = [(line["attempt"], line["step"]) for line in steps_of(folder)]
        assert steps == sorted(steps), "the first attempt wrote after the second had begun"
        assert [step for attempt, step in steps if attempt == 2] == list(range(6, 61))
