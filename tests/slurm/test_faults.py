"""What breaks a job: ranks that are killed or hang, nodes that are lost, ghosts of a lost node. Torch-free."""

import os
import signal
from collections.abc import Callable

from lab import Lab, steps_of

from launch import attempts
from launch.folder import RunFolder
from launch.restarts import RestartConfig

Make = Callable[..., RunFolder]
Submit = Callable[..., str]


def test_a_killed_rank_ends_the_job_everywhere_and_it_goes_on(flat: Lab, probe_run: Make, submit: Submit) -> None:
    _hurt_one_rank(flat, probe_run, submit, signal.SIGKILL)


def test_a_rank_that_hangs_ends_the_job_everywhere_and_it_goes_on(flat: Lab, probe_run: Make, submit: Submit) -> None:
    _hurt_one_rank(flat, probe_run, submit, signal.SIGSTOP)


def test_a_node_on_which_attempts_fail_is_left_out(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=5, broken_node="127.0.0.11")
    job_id = submit(flat, folder, nodes=2, restarts=RestartConfig(exclude_after=2))
    flat.wait_for_state(job_id, "COMPLETED")
    assert [attempt.failed_nodes for attempt in attempts.history(folder)] == [("127.0.0.11",)] * 2 + [()]
    assert flat.field(job_id, "ExcNodeList") == "127.0.0.11"


def test_a_run_that_only_fails_is_given_up(flat: Lab, probe_run: Make, submit: Submit) -> None:
    folder = probe_run(steps=5, status=1)
    job_id = submit(flat, folder, restarts=RestartConfig(max_failures=2, exclude_after=0))
    flat.wait_for_state(job_id, "FAILED")
    flat.wait_for(lambda: attempts.history(folder)[-1].status, 10, "end")
    assert [attempt.status for attempt in attempts.history(folder)] == [1, 1]


def test_two_jobs_on_a_node_and_their_restarts_meet_at_different_ports(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    here = {"sbatch": {"nodelist": "127.0.0.12"}}
    jobs = {submit(flat, folder, **here): folder for folder in (probe_run("one", steps=20), probe_run("two", steps=20))}
    flat.wait_for(lambda: all(attempts.newest_step(folder) > 3 for folder in jobs.values()), 20, "first steps of both")
    flat.command("scontrol", "requeue", next(iter(jobs)))
    for job_id in jobs:
        flat.wait_for_state(job_id, "COMPLETED")
    one, two = ({line["port"] for line in steps_of(folder)} for folder in jobs.values())
    assert (len(one), len(two)) == (2, 1)
    assert not one & two


def test_a_node_that_loses_power_is_replaced(networked: Lab, probe_run: Make, submit: Submit) -> None:
    _lose_first_node(networked, probe_run, submit, networked.power_off)


def test_ghosts_of_a_node_whose_daemon_died_do_not_write(networked: Lab, probe_run: Make, submit: Submit) -> None:
    _lose_first_node(networked, probe_run, submit, networked.kill_slurmd)


def test_ghosts_of_a_node_that_is_cut_off_do_not_write(networked: Lab, probe_run: Make, submit: Submit) -> None:
    _lose_first_node(networked, probe_run, submit, networked.cut)


def _hurt_one_rank(lab: Lab, probe_run: Make, submit: Submit, number: signal.Signals) -> None:
    folder = probe_run(steps=40)
    job_id = submit(lab, folder, nodes=2, processes_per_node=2)
    lab.wait_for(lambda: attempts.newest_step(folder) > 3, 20, "first steps")
    victim = attempts.ranks(folder, 1)[3]
    os.kill(victim.pid, number)
    lab.wait_for_state(job_id, "COMPLETED")
    first, second = attempts.history(folder)
    assert first.failed
    assert first.failed_nodes == (victim.node,)
    assert second.last_step == 40


def _lose_first_node(lab: Lab, probe_run: Make, submit: Submit, lose: Callable[[str], None]) -> None:
    """Lose the node of rank 0, which writes the checkpoints, and of the batch script."""
    folder = probe_run(steps=300)
    job_id = submit(lab, folder, nodes=2)
    lab.wait_for(lambda: attempts.newest_step(folder) > 3, 20, "first steps")
    lost = attempts.history(folder)[0].nodes[0]
    lose(lost)
    lab.wait_for(lambda: attempts.current(folder) == 2, 90, "second attempt")
    lab.wait_for_state(job_id, "COMPLETED")
    second = attempts.history(folder)[1]
    assert lost not in second.nodes
    steps = [(line["attempt"], line["step"]) for line in steps_of(folder)]
    assert steps == sorted(steps), "the first attempt wrote after the second had begun"
    assert [step for attempt, step in steps if attempt == 2] == list(range(second.first_step + 1, 301))
