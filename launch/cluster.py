"""A cluster's profile: what has to be asked of its Slurm, typed, from configs/clusters/NAME.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf

from configs.reader import read
from launch.restarts import RestartConfig

PROFILES = Path(__file__).resolve().parent.parent / "configs" / "clusters"


@dataclass(frozen=True)
class ClusterConfig:
    """What a job asks for, how its processes start and how often it may start again."""

    nodes: int = 1
    """Nodes of the job."""
    processes_per_node: int = 1
    """Ranks on each node; one a GPU."""
    cpus_per_process: int = 1
    """Cores for each rank, its loader threads included."""
    gpus_per_node: int = 0
    """GPUs of a node, asked for as --gpus-per-node."""
    gres: str = ""
    """Asked for as --gres where the cluster wants that in place of --gpus-per-node."""
    gpu_memory_gib: int = 0
    """Memory of a GPU, which the plan of a submission is held against; 0 if it is not known."""
    memory_gib: int = 0
    """Memory of a node; 0 leaves it to the cluster."""
    minutes: int = 60
    """Time limit of one attempt; the run saves before it and goes on in the next."""
    signal_seconds: int = 120
    """How long before the time limit Slurm signals the ranks: more than a step and a save take."""
    straggler_seconds: int = 60
    """After one rank has left, how long the others may take before Slurm kills them."""
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
    sbatch: dict[str, str] = field(default_factory=dict)
    """Any other option of sbatch, such as {reservation: team}."""
    setup: tuple[str, ...] = ()
    """Lines of shell that come first in the job, such as `module load cuda`."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the job."""
    network_interface: str = ""
    """Interface for NCCL and gloo, such as ib0; empty lets them choose."""
    srun_arguments: tuple[str, ...] = ()
    """Further arguments of srun, such as --container-image=..."""
    python: str = ""
    """How a rank starts python, such as `apptainer exec --nv image.sif python`; empty for the python that submits."""
    host_python: str = ""
    """Python 3.11 outside of the container for the batch script's bookkeeping; empty for the python that submits."""
    restarts: RestartConfig = field(default_factory=RestartConfig)
    """How often the run starts again by itself."""

    @property
    def world_size(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.processes_per_node

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself or another."""
        for key in ("nodes", "processes_per_node", "cpus_per_process", "minutes", "straggler_seconds"):
            if getattr(self, key) < 1:
                yield key, f"expected at least 1, got {getattr(self, key)}"
        if not 0 < self.signal_seconds < self.minutes * 60:
            yield (
                "signal_seconds",
                f"expected between 0 and the time limit of {self.minutes * 60} s, got {self.signal_seconds}",
            )
        if self.gpus_per_node and self.gres:
            yield "gres", "is set together with gpus_per_node, and Slurm would add the two up; set one of them"
        if self.gpus_per_node and self.processes_per_node > self.gpus_per_node:
            yield (
                "processes_per_node",
                f"{self.processes_per_node} ranks would share {self.gpus_per_node} GPUs; use one rank a GPU",
            )
        for key, sentence in self.restarts.problems():
            yield f"restarts.{key}", sentence


def load(name: str, **changes: int) -> ClusterConfig:
    """Return the profile in a YAML file, or of that name in configs/clusters, with the values that are not 0 replaced.

    Raises ConfigError with every problem that the profile has.
    """
    return read(ClusterConfig, find(name), [f"{key}={value}" for key, value in changes.items() if value])


def find(name: str) -> Path:
    """Return the profile's file; ValueError with the names that there are."""
    for path in (Path(name), PROFILES / f"{name}.yaml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
    raise ValueError(f"{name}: no such cluster profile; give a YAML file or one of {names}")


def dump(cluster: ClusterConfig) -> str:
    """Return the profile as YAML; `load` of it gives an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(cluster))
