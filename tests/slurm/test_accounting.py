"""A cluster whose database lets in only the workload keys that it knows; submitit would name one of its own."""

from collections.abc import Callable

from lab import Lab, perceiver

from launch.lifecycle.run_folder import RunFolder

SHORT = ("train.steps=6", "train.global_batch=16", "train.log_every_steps=2", "train.evaluate_every_steps=0")


def test_a_cluster_that_refuses_unknown_workload_keys_takes_a_run_and_brings_it_to_its_end(
    accounted: Lab, submit_digits: Callable[..., tuple[str, RunFolder]]
) -> None:
    refused = accounted.run("sbatch", "--wckey=submitit", "--output=/dev/null", "--wrap=true")
    assert "Invalid wckey specification" in refused.stderr
    waiting_id, waiting = submit_digits(accounted, "waiting", *SHORT, sbatch={"begin": "now+1hour"})
    job_id, folder = submit_digits(accounted, "run", *SHORT, nodes=2)
    accounted.wait_for_state(job_id, "COMPLETED")
    states = perceiver(accounted, "status", folder.path, waiting.path, "--json")
    assert [(state["state"], state["job_id"], state["step"]) for state in states] == [
        ("finished", job_id, 6),
        ("pending", waiting_id, 0),
    ]
    # The database hears of an end some seconds after the queue.
    sacct = ("sacct", "--noheader", "--allocations", f"--jobs={job_id}", "--format=State")
    accounted.wait_for(lambda: accounted.command(*sacct).split() == ["COMPLETED"], "the end in the database")
