"""The door to Slurm's queue, and the only file that knows submitit: the batch script, and its submission.

submitit writes the script's header, runs sbatch and reads the job's id. It would also pickle a function and install
signal handlers of its own; a run needs neither, since all its state is in its folder. So nothing is pickled, and the
ranks are plain `python -m launch.rank RUN` in the run's frozen code.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from launch.batch import JOB, preferred_port
from launch.cluster import ClusterConfig
from launch.folder import RunFolder


def script(folders: Sequence[RunFolder], cluster: ClusterConfig, *, job_name: str, exclude: Sequence[str] = ()) -> str:
    """Return the batch script of a run, or of an array with one task a run."""
    return _of_runs(folders, cluster, job_name, exclude).text


def submit(
    folders: Sequence[RunFolder], cluster: ClusterConfig, *, job_name: str, exclude: Sequence[str] = ()
) -> list[str]:
    """Submit the runs, several as one array, and return the job id of each; ValueError with Slurm's own words."""
    job_id = _of_runs(folders, cluster, job_name, exclude).send()
    return [job_id] if len(folders) == 1 else [f"{job_id}_{task}" for task in range(len(folders))]


def submit_module(module: str, folder: Path, cluster: ClusterConfig, *, code: Path, job_name: str) -> str:
    """Submit `python -m MODULE FOLDER` on every rank of the cluster's job and return its id."""
    setup = [
        *_environment(cluster),
        f"cd {shlex.quote(str(code))} || exit 2",
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"export MASTER_PORT={preferred_port(os.getpid(), 0)}",
    ]
    command = f"{_ranks(cluster)} {module} {shlex.quote(str(folder))}"
    return _Executor(folder, cluster, job_name, (), setup, command, []).send()


def _of_runs(
    folders: Sequence[RunFolder], cluster: ClusterConfig, job_name: str, exclude: Sequence[str]
) -> "_Executor":
    host_python, limits = cluster.host_python or _python(), cluster.restarts
    setup = [
        *_which_run(folders),
        *_environment(cluster),
        # From here on every python imports the code that the run was made with.
        'cd "$RUN/code" || exit 2',
        f'SETTINGS=$({host_python} -m launch.batch begin "$RUN") || exit 1',
        'eval "$SETTINGS"',
    ]
    numbers = f"{limits.max_requeues} {limits.max_failures} {limits.exclude_after}"
    teardown = [f'exec {host_python} -m launch.batch end "$RUN" $? {numbers}']
    command = f'{_ranks(cluster)} launch.rank "$RUN"'
    executor = _Executor(folders[0].logs_folder, cluster, job_name, exclude, setup, command, teardown)
    if len(folders) > 1:
        executor.parameters["map_count"] = len(folders)
    return executor


class _Executor(submitit.SlurmExecutor):
    """submitit's executor with our command in the place of its pickle."""

    def __init__(
        self,
        log_folder: Path,
        cluster: ClusterConfig,
        job_name: str,
        exclude: Sequence[str],
        setup: list[str],
        command: str,
        teardown: list[str],
    ) -> None:
        super().__init__(log_folder)
        self.command = command
        self.update_parameters(
            job_name=job_name,
            # Not by submitit: it would have srun name the logs by task and job id, which a requeue does not change.
            use_srun=False,
            stderr_to_stdout=True,
            setup=setup,
            teardown=teardown,
            **_resources(cluster, exclude),
        )

    @classmethod
    def affinity(cls) -> int:
        """Let a script be written where there is no Slurm."""
        return 2

    @property
    def text(self) -> str:
        """The batch script."""
        return str(self._make_submission_file_text(self.command, ""))

    def send(self) -> str:
        """Submit the script and return the job's id; ValueError where Slurm is missing or refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return str(self._submit_command(self.command).job_id)
        except FileNotFoundError as error:
            raise ValueError("there is no sbatch on this machine; submit on a login node of the cluster") from error
        except (FailedJobError, FailedSubmissionError) as error:
            raise ValueError(f"sbatch refused the job: {error}") from error


def _which_run(folders: Sequence[RunFolder]) -> list[str]:
    paths = [shlex.quote(str(folder.path.resolve())) for folder in folders]
    if len(paths) == 1:
        return [f"RUN={paths[0]}", f"export {JOB}=$SLURM_JOB_ID"]
    task = f"export {JOB}=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
    return [f"RUNS=({' '.join(paths)})", 'RUN="${RUNS[$SLURM_ARRAY_TASK_ID]}"', task]


def _environment(cluster: ClusterConfig) -> list[str]:
    interface = cluster.network_interface
    network = {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface} if interface else {}
    variables = network | dict(cluster.environment)
    return [*cluster.setup, *(f"export {name}={shlex.quote(value)}" for name, value in variables.items())]


def _ranks(cluster: ClusterConfig) -> str:
    return " ".join(["srun", *_srun(cluster), cluster.python or _python(), "-u -m"])


def _python() -> str:
    return shlex.quote(sys.executable)


def _srun(cluster: ClusterConfig) -> list[str]:
    arguments = [
        # Ranks that leave with "run me again" are no reason to kill the others in the middle of their own leaving.
        "--kill-on-bad-exit=0",
        f"--wait={cluster.straggler_seconds}",
        # Not inherited from sbatch since Slurm 22.05.
        f"--cpus-per-task={cluster.cpus_per_process}",
        *cluster.srun_arguments,
    ]
    return [shlex.quote(argument) for argument in arguments]


def _resources(cluster: ClusterConfig, exclude: Sequence[str]) -> dict[str, object]:
    named = {name: getattr(cluster, name) for name in ("partition", "account", "qos", "constraint", "gres")}
    avoided = ",".join(filter(None, [cluster.exclude, *exclude]))
    optional = named | {"exclude": avoided, "gpus_per_node": cluster.gpus_per_node}
    if cluster.memory_gib:
        optional["mem"] = f"{cluster.memory_gib}GB"
    return {
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.processes_per_node,
        "cpus_per_task": cluster.cpus_per_process,
        "time": cluster.minutes,
        "signal_delay_s": cluster.signal_seconds,
        # submitit always sends a wckey unless it is None.
        "wckey": cluster.wckey or None,
        "additional_parameters": {"requeue": True, **cluster.sbatch},
        **{name: value for name, value in optional.items() if value},
    }
