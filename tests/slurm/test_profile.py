"""What a profile asks for is what the ranks get: GPUs, modules, variables, the python of a container. Torch-free."""

import sys
from collections.abc import Callable
from pathlib import Path

from lab import Lab, steps_of

from launch.lifecycle import attempts, cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder

PROBE = Path(__file__).parent / "probe"

Make = Callable[..., RunFolder]
Submit = Callable[..., str]
GPUS = "CUDA_VISIBLE_DEVICES"


def test_every_rank_sees_the_gpus_of_its_node_and_two_jobs_on_a_node_share_none(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    names = ("one", "other", "pair")
    *singles, pair = folders = [probe_run(name, steps=10, holds_at=6, records=[GPUS]) for name in names]
    here = {"sbatch": {"nodelist": "127.0.0.14"}}
    requests = [here | {"gpus_per_node": 1}, here | {"gres": "gpu:1"}]
    requests += [{"gpus_per_node": 2, "nodes": 2, "processes_per_node": 2}]
    job_ids = [submit(flat, folder, **request) for folder, request in zip(folders, requests, strict=True)]
    flat.wait_for(lambda: all(attempts.newest_step(folder) == 5 for folder in folders), "first steps of all")
    for folder in folders:
        (folder.path / "go_on").touch()
    for job_id in job_ids:
        flat.wait_for_state(job_id, "COMPLETED")
    assert {line[GPUS] for rank in range(4) for line in steps_of(pair, rank)} == {"0,1"}
    assert sorted(line[GPUS] for folder in singles for line in steps_of(folder)[:1]) == ["0", "1"]


def test_ranks_start_with_the_python_of_a_container_and_the_batch_script_needs_no_package(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    folder = probe_run(steps=5, records=["FROM_MODULE", "IN_CONTAINER", "GREETING"])
    image = f"env IN_CONTAINER=yes {sys.executable}"
    asked = {"setup": ("export FROM_MODULE='a b'",), "environment": {"GREETING": "it's $me"}}
    job_id = submit(flat, folder, python=image, host_python=f"{sys.executable} -S", **asked)
    flat.wait_for_state(job_id, "COMPLETED")
    line = steps_of(folder)[0]
    assert (line["FROM_MODULE"], line["IN_CONTAINER"], line["GREETING"]) == ("a b", "yes", "it's $me")
    assert attempts.history(folder)[0].status == 0


def test_a_job_that_is_submitted_from_inside_of_another_gets_what_its_profile_asks_for(
    flat: Lab, probe_run: Make, tmp_path: Path
) -> None:
    folder = probe_run("50%j of %A", steps=3, records=["SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "MINE"])
    profile = tmp_path / "profile.yaml"
    comment = 'it\'s # 50%j of "this" $HOME'
    asked = {"memory_gib": 1, "sbatch": {"exclusive": True, "comment": comment}, "srun_arguments": ("--chdir=/",)}
    profile.write_text(cluster.dump(ClusterConfig(minutes=10, **asked)))
    variables = ("SBATCH_TIMELIMIT=1", "SBATCH_NO_REQUEUE=1", "SBATCH_EXPORT=NONE", "MINE=yes")
    outer = ("srun", "--mem-per-cpu=100", "env", *variables)
    job_id = flat.command(*outer, sys.executable, PROBE / "submit.py", profile, folder.path).strip()
    assert f"Comment={comment} " in flat.command("scontrol", "show", "job", "--oneliner", job_id)
    assert (flat.field(job_id, "TimeLimit"), flat.field(job_id, "Requeue")) == ("00:10:00", "1")
    flat.wait_for_state(job_id, "COMPLETED")
    line = steps_of(folder)[0]
    assert (line["SLURM_MEM_PER_CPU"], line["SLURM_MEM_PER_NODE"], line["MINE"]) == (None, "1024", "yes")
    assert "attempt 1 ended with status 0: finished" in flat.perceiver("logs", folder.path, "--batch").stdout


def test_a_profile_that_exports_nothing_still_gives_the_ranks_the_variables_of_the_run(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    folder = probe_run(steps=3, records=["GREETING"])
    asked = {"sbatch": {"export": "NONE"}, "environment": {"GREETING": "two\nlines"}, "nodes": 2}
    flat.wait_for_state(submit(flat, folder, **asked), "COMPLETED")
    assert {line["GREETING"] for rank in range(2) for line in steps_of(folder, rank)} == {"two\nlines"}


def test_a_line_of_the_setup_that_fails_ends_the_job_before_the_run_begins(
    flat: Lab, probe_run: Make, submit: Submit
) -> None:
    folder = probe_run(steps=3)
    job_id = submit(flat, folder, setup=("module() { return 1; }", "module load nowhere", "echo never"))
    flat.wait_for_state(job_id, "FAILED")
    assert (flat.field(job_id, "ExitCode"), flat.field(job_id, "Restarts")) == ("2:0", "0")
    printed = flat.perceiver("logs", folder.path, "--batch").stdout
    assert "a line of the setup in the profile failed with status 1: module load nowhere" in printed
    assert "never" not in printed
    assert attempts.history(folder) == []
