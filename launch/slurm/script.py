"""The shell of a batch script: before the ranks start, their start, and after them.

One script is written by door.py of these parts, in this order:

    setup --> variables --> which run --> batch begin --> srun: the ranks --> batch end
    of the profile;         of an array   attempt, port                       record, requeue
    fails: status 2
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.lifecycle.attempts import JOB
from launch.lifecycle.cluster import ClusterConfig, has_control
from launch.lifecycle.run_folder import RunFolder

_START = 'exec "$@"'

PACKAGES = ("torch", "deepspeed")
"""What the python of an environment that the profile's setup activates must have to start the ranks."""

# Status 2 is that of bad input: nobody starts the job again. What fails inside of a sourced file is its own affair, as
# long as the file as a whole does not. A line may also leave: by `exit`, or under `set -u` by an unknown variable.
_WATCH_THE_SETUP = (
    "perceiver_setup_failed() { trap - ERR EXIT; "
    'echo "perceiver: a line of the setup in the profile failed with status $1: $2" >&2; '
    'echo "perceiver: correct it, or end it with || true if it may fail" >&2; exit 2; }',
    "trap 'STATUS=$?; [ ${#BASH_SOURCE[@]} -gt 1 ] || "
    'perceiver_setup_failed $STATUS "$(sed -n "${LINENO}p" "$0")"\' ERR',
    "trap 'perceiver_setup_failed $? \"it left the script\"' EXIT",
)

_IN_THE_CODE = (
    'cd "$0" || { echo "perceiver: $(hostname) does not see $0; a container needs it among its mounts" >&2; exit 2; }; '
)


def before_the_ranks(cluster: ClusterConfig) -> list[str]:
    """Return the profile's setup, which ends the job where it fails, its variables, and the choice of the python."""
    interface = cluster.network_interface
    network = {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface} if interface else {}
    variables = network | dict(cluster.environment)
    exports = [f"export {name}={shlex.quote(str(value))}" for name, value in variables.items()]
    if not cluster.setup:
        return [*exports, f"PERCEIVER_PYTHON={python_here()}"]
    _check_setup(cluster.setup)
    return [
        # Before the setup, so that one which the setup puts first in the PATH can be told from it.
        "PERCEIVER_PYTHON=$(command -v python)",
        *_WATCH_THE_SETUP,
        *cluster.setup,
        "trap - ERR EXIT",
        # A line such as set -e was for the setup: the ranks leave with a status that decides what follows.
        "set +eu +o pipefail",
        *([] if cluster.python else _python_of_setup()),
        *exports,
    ]


def which_run(folders: Sequence[RunFolder]) -> list[str]:
    """Return how the script knows its run and its job, as one of an array too."""
    paths = [shlex.quote(str(folder.path.resolve())) for folder in folders]
    if len(paths) == 1:
        return [f"RUN={paths[0]}", f"export {JOB}=$SLURM_JOB_ID"]
    task = f"export {JOB}=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
    return [f"RUNS=({' '.join(paths)})", 'RUN="${RUNS[$SLURM_ARRAY_TASK_ID]}"', task]


def ranks(cluster: ClusterConfig, module: str, code: str, folder: str, *, first: str = "") -> str:
    """Return the command that starts `python -m MODULE FOLDER` on every rank, in the folder of the code.

    `first` is shell that each rank runs before it, and that may change the words of the command.
    """
    arguments = [
        # Ranks that leave with "run me again" are no reason to kill the others in the middle of their own leaving.
        "--kill-on-bad-exit=0",
        f"--wait={cluster.straggler_seconds}",
        # Not inherited from sbatch since Slurm 22.05.
        f"--cpus-per-task={cluster.cpus_per_process}",
        # A job that was submitted with --export=NONE would else keep its variables from its ranks.
        "--export=ALL",
        *cluster.srun_arguments,
    ]
    srun = " ".join(["srun", *(shlex.quote(argument) for argument in arguments)])
    # A container of pyxis starts in its image's own folder. The folder of the code comes in as $0: no name of a folder
    # has to be quoted twice.
    start = f"sh -c {shlex.quote(_IN_THE_CODE + first + _START)} {code}"
    python = cluster.python or '"$PERCEIVER_PYTHON"'
    return f"{srun} {start} {python} -u -m {module} {folder}"


def refuse_path(path: Path) -> None:
    """Raise ValueError where a batch script cannot name the path."""
    if has_control(str(path)) or "\\" in str(path):
        raise ValueError(
            f"{str(path)!r}: Slurm reads this path in a script, where it must have no line break, no other control "
            "character and no backslash; choose another folder"
        )


def python_here() -> str:
    """Return the python that submits, as a word of shell."""
    return shlex.quote(sys.executable)


def _python_of_setup() -> list[str]:
    """Take the python that the setup put first in the PATH, unless that one could not train."""
    names = json.dumps(PACKAGES)
    trains = f"import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, {names})))"
    return [
        "FOUND=$(command -v python)",
        f'if [ "$FOUND" = "$PERCEIVER_PYTHON" ] || [ -z "$FOUND" ]; then PERCEIVER_PYTHON={python_here()}',
        f'elif "$FOUND" -c {shlex.quote(trains)} 2> /dev/null; then PERCEIVER_PYTHON=$FOUND',
        "else",
        f"  PERCEIVER_PYTHON={python_here()}",
        f'  echo "perceiver: the python of the setup, $FOUND, has no {" or no ".join(PACKAGES)};'
        ' the ranks start with $PERCEIVER_PYTHON" >&2',
        "fi",
    ]


def _check_setup(lines: Sequence[str]) -> None:
    """Raise ValueError where the lines are no shell: an open quote would swallow what follows them."""
    text = "\n".join(lines) + "\n"
    result = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    if result.returncode:
        raise ValueError(f"setup in the profile is not valid shell: {result.stderr.strip()}; correct it")
