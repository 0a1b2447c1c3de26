"""A cluster profile: the resources to request, typed, from configs/clusters/NAME.yaml."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal
from unicodedata import category

from omegaconf import OmegaConf

from configs.reader import read
from data_shards.files.quoting import counted, cut, shown
from launch.lifecycle.restart_policy import RestartConfig

PROFILES = Path(__file__).resolve().parents[2] / "configs" / "clusters"

Value = str | int | float | bool

# Options of sbatch that have a key of the profile, or that the run sets itself.
_ALWAYS_SET = {
    "nodes": "nodes",
    "ntasks": "nodes and processes_per_node",
    "ntasks-per-node": "processes_per_node",
    "cpus-per-task": "cpus_per_process",
    "time": "minutes",
    "signal": "signal_seconds",
}
_SET_BY_KEY = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclude": "exclude",
    "wckey": "wckey",
    "gres": "gres",
    "gpus-per-node": "gpus_per_node",
    "mem": "memory_gib",
}
_OF_SLURM = (
    "gres",
    "memory_gib",
    "partition",
    "account",
    "qos",
    "constraint",
    "exclude",
    "wckey",
    "sbatch",
    "setup",
    "network_interface",
    "srun_arguments",
    "python",
    "host_python",
    "pack_folder",
    "unpack_folder",
)
# They say where output goes and whether sbatch answers as the submission expects.
_OF_THE_RUN = ("array", "error", "input", "job-name", "open-mode", "output", "parsable", "test-only", "wait", "wrap")


@dataclass(frozen=True)
class ClusterConfig:
    """The resources of a job, the start of its processes, and the limits of its restarts."""

    scheduler: Literal["slurm", "local"] = "slurm"
    """Who starts the job: Slurm, or this machine in the background, without a time limit."""
    nodes: int = 1
    """Nodes of the job."""
    processes_per_node: int = 1
    """Ranks on each node; one a GPU."""
    cpus_per_process: int = 1
    """Cores for each rank, its loader threads included."""
    gpus_per_node: int = 0
    """GPUs of a node, asked for as --gpus-per-node."""
    gres: str = ""
    """Generic resources, asked for as --gres where the cluster wants that in place of --gpus-per-node."""
    gpu_memory_gib: int = 0
    """Memory of a GPU, which the plan of a submission is held against; 0 if it is not known."""
    memory_gib: int = 0
    """Memory of a node; 0 leaves it to the cluster."""
    minutes: int = 60
    """Time limit of one attempt. The run saves before it and resumes in the next attempt."""
    signal_seconds: int = 120
    """How long before the time limit Slurm signals the ranks: more than a step and a save take."""
    straggler_seconds: int = 60
    """How long the other ranks may take after one has left, before Slurm kills them."""
    partition: str = ""
    """Partition; empty for the cluster's default, as are the following."""
    account: str = ""
    """Account that is charged."""
    qos: str = ""
    """Quality of service."""
    constraint: str = ""
    """Node features, such as `a100&nvlink`."""
    exclude: str = ""
    """Nodes never to run on, such as `n[3-4],n9`."""
    wckey: str = ""
    """Workload key; none is sent when it is empty, since many clusters refuse unknown ones."""
    sbatch: dict[str, Value] = field(default_factory=dict)
    """Any other option of sbatch, such as {reservation: team, exclusive: true}; false omits an option."""
    setup: tuple[str, ...] = ()
    """Lines of shell that come first in the job, such as `module load cuda`; one that fails ends the job."""
    environment: dict[str, Value] = field(default_factory=dict)
    """Variables of the job."""
    network_interface: str = ""
    """Interface for NCCL and gloo, such as ib0; empty lets them choose."""
    srun_arguments: tuple[str, ...] = ()
    """Further arguments of srun, such as --container-image=..."""
    python: str = ""
    """How a rank starts python, such as `apptainer exec --nv image.sif python`; empty for that of an environment which
    `setup` activates, else for the python that submits."""
    host_python: str = ""
    """Python 3.11 to 3.13 outside of the container, for the batch script's bookkeeping; empty for the one that
    submits."""
    pack_folder: str = ""
    """Folder on the shared disk for the environment that submits, packed into one file; a node unpacks it once and its
    ranks start from there. Empty starts them from where the environment is."""
    unpack_folder: str = ""
    """Folder on each node's own disk for it, such as $TMPDIR or /scratch/$USER; empty for $TMPDIR, or else /tmp."""
    restarts: RestartConfig = field(default_factory=RestartConfig)
    """The limits of automatic restarts."""

    @property
    def world_size(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.processes_per_node

    @property
    def asks_for_gpus(self) -> bool:
        """Whether the job has GPUs, which any option may ask for: --gpus, --gpus-per-task, --gres=gpu:4."""
        options = [name for name, value in self.sbatch.items() if value is not False]
        return bool(self.gpus_per_node) or any("gpu" in words for words in (self.gres, *options, *self.srun_arguments))

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself or another."""
        for key in ("nodes", "processes_per_node", "cpus_per_process", "minutes", "straggler_seconds"):
            if getattr(self, key) < 1:
                yield key, f"expected at least 1, got {getattr(self, key)}"
        # Slurm takes a signal time beyond the limit, and then signals at once or never.
        if not 0 < self.signal_seconds < self.minutes * 60:
            yield (
                "signal_seconds",
                f"expected between 0 and the time limit of {self.minutes * 60} s, got {self.signal_seconds}",
            )
        if self.gpus_per_node and self.gres:
            yield "gres", "is set together with gpus_per_node, and Slurm would add the two up; set one of them"
        # Two ranks of one GPU would each take the memory that the plan gave to one.
        if self.gpus_per_node and self.processes_per_node > self.gpus_per_node:
            yield (
                "processes_per_node",
                f"{self.processes_per_node} ranks would share {counted(self.gpus_per_node, 'GPU')}; use one rank a GPU",
            )
        yield from self._local_problems()
        for key, sentence in self.restarts.problems():
            yield f"restarts.{key}", sentence
        yield from self._packing_problems()
        yield from self._text_problems()
        yield from self._option_problems()
        yield from self._variable_problems()

    def _local_problems(self) -> Iterator[tuple[str, str]]:
        if self.scheduler != "local":
            return
        if self.nodes != 1:
            yield "nodes", f"must be 1 with scheduler=local, which is this machine, got {self.nodes}"
        for key in _OF_SLURM:
            if getattr(self, key):
                yield key, "speaks to Slurm, and has no meaning with scheduler=local; leave it out"

    def _packing_problems(self) -> Iterator[tuple[str, str]]:
        if self.pack_folder and self.python:
            yield "pack_folder", "is set together with python, which starts the ranks from elsewhere; set one of them"
        # A shell of each node evaluates it, so that $TMPDIR is the node's own: nothing that a shell would run may stand
        # in it.
        if self.unpack_folder and not re.fullmatch(r"[/$][\w/$.+@-]*", self.unpack_folder):
            yield (
                "unpack_folder",
                f"expected a path from / or of a variable, such as $TMPDIR/env, got {shown(self.unpack_folder)}",
            )

    def _text_problems(self) -> Iterator[tuple[str, str]]:
        """Each of these is one word or line of the batch script."""
        for item in fields(self):
            text = getattr(self, item.name)
            if isinstance(text, str):
                yield from ((item.name, sentence) for sentence in _line_problems(text))
        # These stand in the script as they are, since they may be several words: an open quote would swallow what
        # follows.
        for key in ("python", "host_python"):
            try:
                shlex.split(getattr(self, key))
            except ValueError as error:
                yield key, f"expected words of a shell, got an open quote ({error})"
        if any("\0" in text for text in (*self.setup, *self.srun_arguments)):
            yield "setup", "expected text, got a NUL character"

    def _option_problems(self) -> Iterator[tuple[str, str]]:
        for name, value in self.sbatch.items():
            key, option = f"sbatch.{name}", name.replace("_", "-")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", option):
                yield "sbatch", f"expected the long names of options, such as mail-user, got {shown(name)}"
            elif option in _ALWAYS_SET:
                yield key, f"has a key of its own; set {_ALWAYS_SET[option]}"
            elif option in _SET_BY_KEY and getattr(self, _SET_BY_KEY[option]):
                yield key, f"is set by {_SET_BY_KEY[option]} too; leave one of the two out"
            elif option in _OF_THE_RUN:
                yield key, "is set by the run itself; leave it out"
            yield from ((key, sentence) for sentence in _line_problems(value) if isinstance(value, str))
        if any(argument.partition("=")[0] == "--export" for argument in self.srun_arguments):
            yield "srun_arguments", "--export keeps the run's variables from its ranks; set yours under environment"

    def _variable_problems(self) -> Iterator[tuple[str, str]]:
        for name, value in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                yield "environment", f"expected names of letters, digits and _, got {shown(name)}"
            elif isinstance(value, bool):
                yield (
                    f"environment.{name}",
                    "is a boolean of YAML; write the text that the variable is to have in quotes",
                )
            elif "\0" in str(value):
                yield f"environment.{name}", "expected text, got a NUL character"


def _line_problems(text: Value) -> Iterator[str]:
    # YAML reads no, yes, on and off as booleans, and a field of text gets them as these words.
    if text in ("True", "False"):
        yield "is a boolean of YAML; write the text that is meant in quotes"
    elif has_control(str(text)):
        yield "expected one line, got a line break or another control character; take it out"


def has_control(text: str) -> bool:
    """Return whether a text has a line break or another control character."""
    return any(category(letter) == "Cc" for letter in text)


def load(name: str, **changes: int) -> ClusterConfig:
    """Return the profile in a YAML file, or of that name in configs/clusters, with the values that are not 0 replaced.

    Raises ConfigError with every problem that the profile has.
    """
    return read(ClusterConfig, find(name), [f"{key}={value}" for key, value in changes.items() if value])


def find(name: str) -> Path:
    """Return the profile's file; ValueError with the names that there are."""
    # A file of the user's own comes first, also one that is named like a profile of ours.
    for path in (Path(name), PROFILES / f"{name}.yaml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
    raise ValueError(f"{cut(name)}: no such cluster profile; give a YAML file or one of {names}")


def dump(cluster: ClusterConfig) -> str:
    """Return the profile as YAML; `load` of it gives an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(cluster))
