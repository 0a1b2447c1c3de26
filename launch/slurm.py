"""The door to Slurm's queue, and the only file that knows submitit: the batch script, and its submission.

submitit writes the script's header, runs sbatch and reads the job's id. It would also pickle a function and install
signal handlers of its own; a run needs neither, since all its state is in its folder. So nothing is pickled, and the
ranks are plain `python -m launch.rank RUN` in the run's frozen code.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from launch.cluster import ClusterConfig
from launch.folder import RunFolder


def script(folders: Sequence[RunFolder], cluster: ClusterConfig, *, job_name: str, exclude: Sequence[str] = ()) -> str:
    """Return the batch script of a run, or of an array with one task a run."""
    executor = _Executor(folders, cluster, job_name, exclude)
    return executor._make_submission_file_text(executor.ranks, "")


def submit(
    folders: Sequence[RunFolder], cluster: ClusterConfig, *, job_name: str, exclude: Sequence[str] = ()
) -> list[str]:
    """Submit the runs, several as one array, and return the job id of each; ValueError with Slurm's own words."""
    executor = _Executor(folders, cluster, job_name, exclude)
    try:
        executor.folder.mkdir(parents=True, exist_ok=True)
        job_id = str(executor._submit_command(executor.ranks).job_id)
    except FileNotFoundError as error:
        raise ValueError("there is no sbatch on this machine; submit on a login node of the cluster") from error
    except (FailedJobError, FailedSubmissionError) as error:
        raise ValueError(f"sbatch refused the job: {error}") from error
    return [job_id] if len(folders) == 1 else [f"{job_id}_{task}" for task in range(len(folders))]


class _Executor(submitit.SlurmExecutor):
    """submitit's executor with our command in the place of its pickle."""

    def __init__(
        self, folders: Sequence[RunFolder], cluster: ClusterConfig, job_name: str, exclude: Sequence[str]
    ) -> None:
        super().__init__(folders[0].logs_folder)
        python = shlex.quote(sys.executable)
        self.host_python = cluster.host_python or python
        # Not by submitit: it would have srun name the logs by task and job id, which a requeue does not change.
        self.ranks = " ".join(["srun", *_srun(cluster), cluster.python or python, '-u -m launch.rank "$RUN"'])
        self.update_parameters(
            job_name=job_name,
            use_srun=False,
            stderr_to_stdout=True,
            setup=[*self._which_run(folders), *self._setup(cluster)],
            teardown=self._teardown(cluster),
            **_resources(cluster, exclude),
        )
        if len(folders) > 1:
            self.parameters["map_count"] = len(folders)

    @classmethod
    def affinity(cls) -> int:
        """Let a script be written where there is no Slurm."""
        return 2

    def _which_run(self, folders: Sequence[RunFolder]) -> list[str]:
        paths = [shlex.quote(str(folder.path.resolve())) for folder in folders]
        if len(paths) == 1:
            return [f"RUN={paths[0]}"]
        return [f"RUNS=({' '.join(paths)})", 'RUN="${RUNS[$SLURM_ARRAY_TASK_ID]}"']

    def _setup(self, cluster: ClusterConfig) -> list[str]:
        interface = cluster.network_interface
        network = {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface} if interface else {}
        variables = network | dict(cluster.environment)
        return [
            *cluster.setup,
            *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
            # From here on every python imports the code that the run was made with.
            'cd "$RUN/code" || exit 2',
            f'SETTINGS=$({self.host_python} -m launch.batch begin "$RUN") || exit 1',
            'eval "$SETTINGS"',
        ]

    def _teardown(self, cluster: ClusterConfig) -> list[str]:
        limits = cluster.restarts
        numbers = f"{limits.max_requeues} {limits.max_failures} {limits.exclude_after}"
        return [f'exec {self.host_python} -m launch.batch end "$RUN" $? {numbers}']


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


def log_path(folder: RunFolder, job_id: str) -> Path:
    """Return where the batch script of a job prints."""
    return folder.logs_folder / f"{job_id}_0_log.out"
