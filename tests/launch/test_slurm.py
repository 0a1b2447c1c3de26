import subprocess
from pathlib import Path

import pytest

from launch import slurm
from launch.cluster import ClusterConfig
from launch.folder import RunFolder


def script(*names: str, **changes: object) -> list[str]:
    folders = [RunFolder(Path("/shared") / name) for name in names]
    text = slurm.script(folders, ClusterConfig(**changes), job_name="job", exclude=["n7"])
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    return text.splitlines()


def test_the_script_asks_for_what_the_profile_says_and_for_nothing_else() -> None:
    lines = script("run", nodes=2, gpus_per_node=1, memory_gib=64, exclude="n1", sbatch={"reservation": "team"})
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert asked == {
        "cpus-per-task=1",
        "exclude=n1,n7",
        "gpus-per-node=1",
        "job-name=job",
        "mem=64GB",
        "nodes=2",
        "ntasks-per-node=1",
        "open-mode=append",
        "output=/shared/run/logs/%j_0_log.out",
        "requeue",
        "reservation=team",
        "signal=USR2@120",
        "time=60",
    }


def test_a_cluster_that_knows_wckeys_gets_ours_and_others_get_none() -> None:
    assert not any("wckey" in line for line in script("run"))
    assert "#SBATCH --wckey=vision" in script("run", wckey="vision")


def test_the_ranks_run_in_the_frozen_code_whatever_the_folder_is_called() -> None:
    lines = script('it\'s a "run"')
    name = next(line for line in lines if line.startswith("RUN="))
    shown = subprocess.run(["bash", "-c", f'{name}; printf %s "$RUN"'], capture_output=True, text=True, check=True)
    assert shown.stdout == '/shared/it\'s a "run"'
    assert lines.index('cd "$RUN/code" || exit 2') < next(k for k, line in enumerate(lines) if line.startswith("srun"))


def test_module_lines_and_variables_come_before_anything_runs_and_srun_gets_its_arguments() -> None:
    lines = script(
        "run",
        setup=("module load cuda/12.4",),
        environment={"NCCL_DEBUG": "WARN", "GREETING": "it's $me"},
        network_interface="ib0",
        srun_arguments=("--container-image=/shared/a b.sqsh",),
    )
    module = lines.index("module load cuda/12.4")
    first = lines.index('cd "$RUN/code" || exit 2')
    for name, value in {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0", "NCCL_DEBUG": "WARN"}.items():
        assert module < lines.index(f"export {name}={value}") < first
    greeting = next(line for line in lines if line.startswith("export GREETING"))
    shown = subprocess.run(["bash", "-c", f"{greeting}; env"], capture_output=True, text=True, check=True)
    assert "GREETING=it's $me" in shown.stdout.splitlines()
    assert "'--container-image=/shared/a b.sqsh'" in next(line for line in lines if line.startswith("srun"))


def test_an_array_has_a_run_for_every_task() -> None:
    lines = script("a", "b c")
    assert "#SBATCH --array=0-1%2" in lines
    assert "RUNS=(/shared/a '/shared/b c')" in lines
    assert "export PERCEIVER_JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" in lines
    assert "export PERCEIVER_JOB=$SLURM_JOB_ID" in script("a")


def test_containers_get_their_own_python_and_the_bookkeeping_that_of_the_host() -> None:
    lines = script("run", python="apptainer exec x.sif python", host_python="python3.11")
    assert any(line.startswith("srun") and "apptainer exec x.sif python -u -m launch.rank" in line for line in lines)
    assert any(line.startswith("exec python3.11 -m launch.batch end") for line in lines)


def test_without_slurm_a_submission_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no sbatch on this machine"):
        slurm.submit([RunFolder(tmp_path / "run")], ClusterConfig(), job_name="job")
