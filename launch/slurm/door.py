"""The interface to sbatch, and the only module that imports submitit: the batch script's header and its submission.

submitit writes the header. It would also pickle a function and install signal handlers of its own; a run needs neither,
since all its state is in its folder. So nothing is pickled, and the ranks are plain
`python -m launch.supervise.rank RUN` in the run's frozen code.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import submitit

from launch.lifecycle.cluster import ClusterConfig, Value
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import inherited, packing
from launch.slurm.batch import FIRST_PORT, NUM_PORTS, PROFILE_EXCLUDES
from launch.slurm.script import before_the_ranks, python_here, ranks, refuse_path, which_run

ANSWER_SECONDS = 120.0


def script(
    folders: Sequence[RunFolder],
    cluster: ClusterConfig,
    *,
    job_name: str,
    exclude: Sequence[str] = (),
    packed: Path | None = None,
) -> str:
    """Return the batch script of a run, or of an array with one task a run; ValueError where it cannot be written.

    `packed` is the file of the environment that each node unpacks, see launch/slurm/packing.py.
    """
    return _of_runs(folders, cluster, job_name, exclude, packed).text


def submit(
    folders: Sequence[RunFolder],
    cluster: ClusterConfig,
    *,
    job_name: str,
    exclude: Sequence[str] = (),
    packed: Path | None = None,
) -> list[str]:
    """Submit the runs, several as one array, and return the job id of each; ValueError with Slurm's own words."""
    job_id = _of_runs(folders, cluster, job_name, exclude, packed).send()
    return [job_id] if len(folders) == 1 else [f"{job_id}_{task}" for task in range(len(folders))]


def submit_module(module: str, folder: Path, cluster: ClusterConfig, *, code: Path, job_name: str) -> str:
    """Submit `python -m MODULE FOLDER` on every rank of the cluster's job, once, and return its id."""
    refuse_path(folder)
    setup = [
        *before_the_ranks(cluster),
        f"CODE={shlex.quote(str(code))} FOLDER={shlex.quote(str(folder))}",
        'cd "$CODE" || exit 2',
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        # By the job's number, as of an attempt 0: jobs on one node share none.
        f"export MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID * 101 % {NUM_PORTS}))",
    ]
    command = ranks(cluster, module, '"$CODE"', '"$FOLDER"')
    # A test of the cluster that Slurm starts again has nobody who waits for it.
    once = replace(cluster, sbatch={**cluster.sbatch, "no-requeue": True})
    return _Executor(folder, once, job_name, (), setup, command, []).send()


def _of_runs(
    folders: Sequence[RunFolder],
    cluster: ClusterConfig,
    job_name: str,
    exclude: Sequence[str],
    packed: Path | None,
) -> "_Executor":
    host_python, limits = cluster.host_python or python_here(), cluster.restarts
    for folder in folders:
        refuse_path(folder.path)
    setup = [
        *before_the_ranks(cluster),
        *which_run(folders),
        f"export {PROFILE_EXCLUDES}={shlex.quote(cluster.exclude)}",
        # From here on every python imports the code that the run was made with.
        'cd "$RUN/code" || exit 2',
        f'SETTINGS=$({host_python} -m launch.slurm.batch begin "$RUN") || exit $?',
        'eval "$SETTINGS"',
        *(packing.variables(cluster, packed) if packed else ()),
    ]
    numbers = f"{limits.max_requeues} {limits.max_failures} {limits.exclude_after}"
    teardown = [
        *(packing.cleaning(cluster) if packed else ()),
        # exec: the TERM that a requeue sends reaches python, which ignores it, and no shell that it would end.
        f'exec {host_python} -m launch.slurm.batch end "$RUN" $? {numbers}',
    ]
    first = packing.UNPACK if packed else ""
    command = ranks(cluster, "launch.supervise.rank", '"$RUN/code"', '"$RUN"', first=first)
    executor = _Executor(folders[0].logs_folder, cluster, job_name, exclude, setup, command, teardown)
    if len(folders) > 1:
        # submitit would let 256 run at once.
        executor.parameters["map_count"] = executor.parameters["array_parallelism"] = len(folders)
        executor.parameters["additional_parameters"]["output"] = _log(folders[0].logs_folder, "%A_%a")
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
        # Only where its own log would go: it takes a % in a folder's name for a placeholder.
        super().__init__("/")
        self.log_folder = log_folder
        self.command = command
        self.update_parameters(
            job_name=job_name,
            # Not by submitit: it would have srun name the logs by task and job id, which a requeue does not change.
            use_srun=False,
            stderr_to_stdout=True,
            setup=setup,
            teardown=teardown,
            **_resources(cluster, exclude, log_folder),
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
        self.log_folder.mkdir(parents=True, exist_ok=True)
        try:
            result = subprocess.run(
                ["sbatch", "--parsable"],
                # Paths may have bytes that are no UTF-8.
                input=os.fsencode(self.text),
                env=inherited.passed(),
                capture_output=True,
                timeout=ANSWER_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise ValueError("there is no sbatch on this machine; submit on a login node of the cluster") from error
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"sbatch did not answer within {ANSWER_SECONDS:.0f} s; see squeue, then try again"
            ) from error
        # Behind the id there may be ;CLUSTER, and above it lines of the site's own.
        job_id = re.fullmatch(rb"([0-9]+)(;.*)?", result.stdout.strip().rpartition(b"\n")[2])
        if result.returncode or job_id is None:
            words = (result.stderr or result.stdout).decode(errors="replace").strip()
            raise ValueError(f"sbatch refused the job: {words or f'exit status {result.returncode}'}")
        name = job_id[1].decode()
        (self.log_folder / f"{name}_submission.sh").write_bytes(os.fsencode(self.text))
        return name


def _log(folder: Path, job: str) -> str:
    """Return the log of a job whose id is that placeholder of Slurm; any other % is meant as it is."""
    return f"{str(folder).replace('%', '%%')}/{job}_0_log.out"


def _resources(cluster: ClusterConfig, exclude: Sequence[str], log_folder: Path) -> dict[str, object]:
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
        "additional_parameters": {**_options(cluster.sbatch), "output": _log(log_folder, "%j")},
        **{name: value for name, value in optional.items() if value},
    }


def _options(asked: Mapping[str, Value]) -> dict[str, Value]:
    """Return further options: a true one has no value, a false one is left out."""
    # After a lost node or a preemption Slurm starts a job again only if it may.
    options = {"requeue": True} | {name.replace("_", "-"): value for name, value in asked.items()}
    if options.get("no-requeue"):
        del options["requeue"]
    return {name: value for name, value in options.items() if value is not False}
