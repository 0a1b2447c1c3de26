import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.restart_policy import RestartConfig
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import door
from launch.slurm.batch import preferred_port


def script(*names: str, **changes: object) -> list[str]:
    folders = [RunFolder(Path("/shared") / name) for name in names]
    text = door.script(folders, ClusterConfig(**changes), job_name="job", exclude=["n7"])
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
    assert any(
        line.startswith("srun") and "apptainer exec x.sif python -u -m launch.supervise.rank" in line for line in lines
    )
    assert any(line.startswith("exec python3.11 -m launch.slurm.batch end") for line in lines)


def test_without_slurm_a_submission_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no sbatch on this machine"):
        door.submit([RunFolder(tmp_path / "run")], ClusterConfig(), job_name="job")


def test_what_slurm_answers_is_the_job_s_id_or_its_refusal_in_its_own_words(
    tmp_path: Path, commands: Callable[..., Callable[[str], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [RunFolder(tmp_path / name) for name in ("a", "b")]
    asked = commands(sbatch="cat > script; echo 'sbatch: a word of the site'; echo '12;lab'")
    assert door.submit(folders[:1], ClusterConfig(), job_name="job") == ["12"]
    assert door.submit(folders, ClusterConfig(), job_name="job") == ["12_0", "12_1"]
    assert asked("sbatch") == ["--parsable"] * 2
    kept = (folders[0].logs_folder / "12_submission.sh").read_text()
    assert (
        kept == (tmp_path / "stand_ins" / "script").read_text() == door.script(folders, ClusterConfig(), job_name="job")
    )
    for answer, words in (
        ("echo 'invalid account' >&2; exit 1", "sbatch refused the job: invalid account"),
        ("echo 'try later'; exit 1", "sbatch refused the job: try later"),
        ("exit 3", "sbatch refused the job: exit status 3"),
        ("echo 12; exit 1", "sbatch refused the job: 12"),
        ("echo no number", "sbatch refused the job: no number"),
    ):
        commands(sbatch=f"cat > script; {answer}")
        with pytest.raises(ValueError, match=words):
            door.submit(folders[:1], ClusterConfig(), job_name="job")
    monkeypatch.setattr(door, "ANSWER_SECONDS", 0.2)
    commands(sbatch="exec sleep 60")
    with pytest.raises(ValueError, match="sbatch did not answer within"):
        door.submit(folders[:1], ClusterConfig(), job_name="job")


def test_what_follows_the_ranks_knows_the_limits_of_the_profile_and_who_is_excluded() -> None:
    limits = RestartConfig(max_requeues=7, max_failures=5, exclude_after=3)
    lines = script("run", restarts=limits, exclude="n1", host_python="python3.11")
    assert lines[-1] == 'exec python3.11 -m launch.slurm.batch end "$RUN" $? 7 5 3'
    assert "export PERCEIVER_EXCLUDE=n1" in lines
    begin = 'SETTINGS=$(python3.11 -m launch.slurm.batch begin "$RUN") || exit $?'
    assert lines.index(begin) < lines.index('eval "$SETTINGS"') < len(lines) - 1


@pytest.mark.parametrize(("refuses", "status"), [(True, 2), (False, 1)])
def test_a_start_that_is_refused_ends_the_job_with_the_status_of_bad_input(
    refuses: bool, status: int, tmp_path: Path, commands: Callable[..., Callable[[str], list[str]]]
) -> None:
    asked = commands(srun="exit 0", scontrol="exit 1")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.code_folder.symlink_to(Path(door.__file__).parents[2])
    if refuses:
        run.logs_folder.symlink_to(tmp_path / "nowhere")
    text = door.script([run], ClusterConfig(), job_name="job")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"}
    job = subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, env=os.environ | slurm, cwd=tmp_path, check=False
    )
    assert (job.returncode, ("is a link to" in job.stderr) == refuses) == (status, True), job.stderr
    assert asked("srun") == []


def test_every_resource_of_the_profile_is_asked_for() -> None:
    lines = script(
        "run",
        partition="side",
        account="ours",
        qos="high",
        constraint="a100&nvlink",
        gres="gpu:4",
        processes_per_node=4,
        cpus_per_process=8,
        minutes=30,
        signal_seconds=90,
    )
    asked = {line.removeprefix("#SBATCH --").replace("'", "") for line in lines if line.startswith("#SBATCH")}
    assert {"partition=side", "account=ours", "qos=high", "constraint=a100&nvlink", "gres=gpu:4"} <= asked
    assert {"ntasks-per-node=4", "cpus-per-task=8", "time=30", "signal=USR2@90", "exclude=n7"} <= asked
    assert not any(each.startswith(("mem", "gpus", "wckey")) for each in asked)
    assert "--cpus-per-task=8" in next(line for line in lines if line.startswith("srun"))


ARRAY = """\
#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=3
#SBATCH --exclude=n9,n7
#SBATCH --job-name=job
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --open-mode=append
#SBATCH --output=/shared/a/logs/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=60

# setup
export NCCL_SOCKET_IFNAME=ib0
export GLOO_SOCKET_IFNAME=ib0
export A='b c'
PERCEIVER_PYTHON=HERE
RUNS=(/shared/a '/shared/b c')
RUN="${RUNS[$SLURM_ARRAY_TASK_ID]}"
export PERCEIVER_JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
export PERCEIVER_EXCLUDE=n9
cd "$RUN/code" || exit 2
SETTINGS=$(python3 -m launch.slurm.batch begin "$RUN") || exit $?
eval "$SETTINGS"

# command
export SUBMITIT_EXECUTOR=slurm
srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task=3 --export=ALL sh -c 'cd "$0" || { echo "perceiver: $(hostname) \
does not see $0; a container needs it among its mounts" >&2; exit 2; }; exec "$@"' "$RUN/code" py -u \
-m launch.supervise.rank "$RUN"


# teardown
exec python3 -m launch.slurm.batch end "$RUN" $? 100 3 2"""


def test_the_script_of_an_array_is_this_text_and_no_other_line() -> None:
    profile = {"python": "py", "host_python": "python3", "exclude": "n9", "network_interface": "ib0"}
    lines = script("a", "b c", **profile, environment={"A": "b c"}, processes_per_node=2, cpus_per_process=3)
    assert lines == ARRAY.replace("HERE", shlex.quote(sys.executable)).splitlines()


def test_a_module_s_folder_must_be_one_that_a_script_can_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have no line break"):
        door.submit_module("m", tmp_path / "a\nb", ClusterConfig(), code=tmp_path, job_name="job")


def test_the_port_of_a_job_that_is_no_run_is_that_of_its_attempt_0(
    tmp_path: Path, commands: Callable[..., Callable[[str], list[str]]]
) -> None:
    commands(sbatch="cat > script; echo 12")
    door.submit_module("m", tmp_path, ClusterConfig(), code=tmp_path, job_name="job")
    lines = (tmp_path / "stand_ins" / "script").read_text().splitlines()
    [port] = [line.removeprefix("export ") for line in lines if "MASTER_PORT" in line]
    jobs = (1, 12, 118, 4_000_000)
    shell = "".join(f"SLURM_JOB_ID={job}; {port}; echo $MASTER_PORT; " for job in jobs)
    told = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.split()
    assert told == [str(preferred_port(job, 0)) for job in jobs]
