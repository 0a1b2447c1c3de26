"""The flags of `perceiver plan --nodes ...`, checked, and the plan as a table or as JSON."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import typer

from configs.files import sections_of
from configs.reader import read
from configs.run import RunConfig, load
from data_shards.files.quoting import counted, shown
from launch.cli.units import bytes_per_second
from launch.planning.cluster_plan import Cluster, ClusterPlan, cluster_plan
from launch.planning.plan import parts_of_state
from model.budget.hardware import HARDWARE, Hardware
from model.config.perceiver import PerceiverConfig
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig, joint_problems
from trainer.ema_config import EmaConfig

GIB = 2**30
SAMPLES_PER_RANK = 64
"""The batch of a rank, if a file has a network only and no batch is given."""
COMMIT_SECONDS = 1.0
"""Expected of a shared disk, not measured; benchmarks/plan.py measures it of a local one."""
# Beyond any machine: a slip of a digit is told, not planned.
_MOST_NODES, _MOST_GPUS = 100_000, 1_024
_MOST_HOURS = 10**9


@dataclass(frozen=True)
class Flags:
    """The flags that describe a cluster, as typed."""

    nodes: int
    gpus: int
    device: str
    interconnect: str
    disk: str
    mtbf_hours: float
    restart_minutes: float
    memory_gib: float
    peak_tflops: float

    def cluster(self) -> Cluster:
        """Return the cluster; ValueError with the first flag that makes no sense."""
        # The first one: a second sentence about the same slip would be noise.
        for problem in self._problems():
            raise ValueError(problem)
        return Cluster(
            nodes=self.nodes,
            gpus=self.gpus,
            device=self._device(),
            interconnect_bytes_per_second=bytes_per_second(self.interconnect, "--interconnect"),
            disk_bytes_per_second=bytes_per_second(self.disk, "--disk"),
            commit_seconds=COMMIT_SECONDS,
            node_mtbf_seconds=3600 * self.mtbf_hours,
            restart_seconds=60 * self.restart_minutes,
        )

    def _device(self) -> Hardware:
        device = HARDWARE[self.device.upper()]
        if self.memory_gib:
            device = replace(device, memory_bytes=self.memory_gib * GIB)
        if self.peak_tflops:
            peak = 1e12 * self.peak_tflops
            # A rate that was given is one that is reached, and no peak of a data sheet.
            source = f"{self.device.upper()}, but products at {self.peak_tflops:g} TFLOP/s as --peak-tflops says"
            # The run computes in one precision, so a rate that is given is that one's.
            device = replace(device, fp32_flops=peak, half_flops=peak, product_share=1.0, source=source)
        return device

    def _problems(self) -> Iterator[str]:
        for flag, count, most in (("--nodes", self.nodes, _MOST_NODES), ("--gpus", self.gpus, _MOST_GPUS)):
            if not 1 <= count <= most:
                yield f"{flag}: expected a count from 1 to {most}, got {count}"
        if self.device.upper() not in HARDWARE:
            yield f"--device: expected one of {', '.join(HARDWARE)}, got {shown(self.device)}"
        if not 0 < self.mtbf_hours <= _MOST_HOURS:
            yield (
                "--mtbf-hours: expected the hours between two failures of a node, above 0 and at most "
                f"{_MOST_HOURS:,}, got {self.mtbf_hours:g}"
            )
        if not 0 <= self.restart_minutes < math.inf:
            yield f"--restart-minutes: expected 0 or more, got {self.restart_minutes:g}"
        for flag, number in (("--memory-gib", self.memory_gib), ("--peak-tflops", self.peak_tflops)):
            if not 0 <= number < math.inf:
                yield f"{flag}: expected 0 or more, got {number:g}"


@dataclass(frozen=True)
class PlannedNetwork:
    """A network without a run. key=value says how it would be trained."""

    model: PerceiverConfig = field(default_factory=PerceiverConfig)
    """The network."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The moving average of the weights."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Batch, precision and partitioning."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem."""
        for part in ("model", "optimizer", "ema", "train", "checkpoint"):
            yield from ((f"{part}.{key}", sentence) for key, sentence in getattr(self, part).problems())
        yield from joint_problems(self.optimizer, self.train, self.ema, compiles=self.model.compile is True)


def report(path: Path, overrides: Sequence[str], flags: Flags, *, bf16: bool, as_json: bool) -> None:
    """Print the plan of a run on the cluster that the flags describe."""
    cluster = flags.cluster()
    found = cluster_plan(_run(path, overrides, cluster.world_size, bf16=bf16), cluster)
    if as_json:
        typer.echo(json.dumps({"flags": asdict(flags), **asdict(found)}))
        return
    for line in _lines(found, flags):
        typer.echo(line)


def _run(path: Path, overrides: Sequence[str], world_size: int, *, bf16: bool) -> RunConfig:
    """Return the run of a YAML file; one that holds `model` alone gets a batch of SAMPLES_PER_RANK for each rank."""
    overrides = [*overrides, *(["train.precision=bf16"] if bf16 else [])]
    # Its batch is not known, and a plan needs one.
    if path.is_file() and sections_of(path) <= {"model"}:
        batch = f"train.global_batch={SAMPLES_PER_RANK * world_size}"
        network = read(PlannedNetwork, path, [batch, *overrides])
        parts = {name: getattr(network, name) for name in ("model", "optimizer", "ema", "train", "checkpoint")}
        return RunConfig(**parts)
    return load(path, overrides)


def _lines(found: ClusterPlan, flags: Flags) -> Iterator[str]:
    yield f"{counted(found.world_size, 'rank')}: {counted(flags.nodes, 'node')} of {flags.gpus}; {found.device}"
    yield (
        f"global batch {found.global_batch}, {found.global_batch // found.world_size} per rank in "
        f"{counted(found.micro_batches, 'micro-batch')}, {found.precision}, ZeRO {found.zero_stage}"
    )
    yield ""
    yield f"{'part of a step':24}{'ms':>10}{'share':>9}"
    for name, seconds in found.step.items():
        yield f"{name:24}{1000 * seconds:10.2f}{seconds / found.step_seconds:9.1%}"
    yield f"{'step':24}{1000 * found.step_seconds:10.2f}"
    yield ""
    yield f"{'communication':24}{'MB sent':>10}{'ms':>10}{'ms with overlap':>18}"
    for stage, each in found.communication.items():
        name = f"ZeRO {stage}{', this run' if stage == found.zero_stage else ''}"
        yield f"{name:24}{each.sent_bytes / 1e6:10.1f}{1000 * each.seconds:10.2f}{1000 * each.overlapped_seconds:18.2f}"
    yield f"this run exchanges {'during' if found.overlaps else 'after'} the backward pass"
    yield ""
    yield f"{'samples/s':24}{found.samples_per_second:10.1f}"
    yield f"{'scaling efficiency':24}{found.efficiency:10.1%}   of the speed without communication"
    needed = found.state_bytes + found.activation_bytes
    yield (
        f"{'memory of a rank':24}{needed / GIB:10.3f}   GiB: {found.state_bytes / GIB:.3f} for "
        f"{parts_of_state(found.has_average)}, {found.activation_bytes / GIB:.3f} for activations; "
        f"{'fits into' if found.fits else 'DOES NOT FIT into'} {found.device_memory_bytes / GIB:.1f}"
    )
    yield from _fault_lines(found, flags)


def _fault_lines(found: ClusterPlan, flags: Flags) -> Iterator[str]:
    ends = found.goodput
    yield (
        f"{'save':24}{found.save_seconds:10.2f}   s: {found.checkpoint_bytes / GIB:.3f} GiB at {flags.disk} of the "
        f"shared disk (--disk), and {COMMIT_SECONDS:g} s to commit; the training stops for "
        f"{found.stall_seconds:.3f} s of it"
    )
    yield (
        f"{'failures':24}{found.job_mtbf_seconds / 3600:10.2f}   h between two failures of the job: "
        f"{flags.mtbf_hours:g} h of one node (--mtbf-hours) / {counted(flags.nodes, 'node')}"
    )
    minutes = ends.interval_seconds / 60
    yield (
        f"{'best between saves':24}{minutes:10.2f}   min: checkpoint.save_every_steps={found.interval_steps} "
        f"checkpoint.save_every_minutes=0"
    )
    yield (
        f"{'goodput':24}{ends.useful:10.2%}   saves {ends.saves:.2%}, lost work {ends.lost_work:.2%}, "
        f"restarts {ends.restarts:.2%} ({flags.restart_minutes:g} min each, --restart-minutes)"
    )
    yield (
        f"{'whole run':24}{found.run_seconds / 3600:10.1f}   h for train.steps={found.steps} at this goodput, without "
        "evaluations"
    )
