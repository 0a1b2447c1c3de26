"""What a profile asks for is what the ranks get: GPUs, modules, variables, the python of a container. Torch-free."""

import sys
from collections.abc import Callable

from lab import Lab, steps_of

from launch import attempts
from launch.folder import RunFolder

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
