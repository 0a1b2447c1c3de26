"""Checks of a run before it waits in a queue: how it is divided, what it needs, and what would not fit."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.run import RunConfig
from data_shards.config import DataConfig
from data_shards.files.history import is_number, lines
from data_shards.files.quoting import counted
from data_shards.loading.shard_folders import Place
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.planning.activation_policy import element_bytes, planned
from launch.planning.frozen_parameters import Share, num_frozen, trained_share
from model.budget.activation_memory import activation_bytes
from model.budget.flops import network_cost, total
from trainer.engine.arithmetic import local_device_type, resolved
from trainer.optim.optimizers import num_beside

# Weights and moments are fp32 whatever the precision, see docs/decisions/6-half-precision-is-autocast.md.
BYTES_PER_NUMBER = 4
GIB = 2**30
ASSUMED_WRITE_BYTES_PER_SECOND = 200e6
"""The assumed write rate, until the run has saved once and its own time is known."""


@dataclass(frozen=True)
class Plan:
    """A run on a cluster, in numbers."""

    world_size: int
    """Ranks."""
    micro_batches: int
    """The number of micro-batches into which a rank cuts its share of a step."""
    parameters: int
    """Weights of the network."""
    state_bytes: int
    """Memory of one rank for weights, gradients, moments and the moving average."""
    activation_bytes: int
    """Memory of one rank for what its micro-batch keeps for the backward pass."""
    checkpoint_bytes: int
    """The size of one checkpoint on the disk."""
    has_average: bool
    """Whether a moving average of the weights is kept."""
    kept_checkpoints: int
    """The number of checkpoints at the same time, with the one being written."""
    free_bytes: int
    """Free where the run is."""
    save_seconds: float
    """The time of a stop: the longest step and save so far, or an assumption before the first save."""
    is_measured: bool
    """Whether save_seconds was measured in this run."""

    def sentences(self) -> Iterator[str]:
        """Yield the plan in words."""
        ranks, micro_batches = counted(self.world_size, "rank"), counted(self.micro_batches, "micro-batch")
        yield f"{ranks}, {micro_batches} per step, {counted(self.parameters, 'parameter', form=',')}"
        yield (
            f"{self.state_bytes / GIB:.3f} GiB per rank for {parts_of_state(self.has_average)}, "
            f"{self.activation_bytes / GIB:.3f} GiB for the activations of a micro-batch"
        )
        kept, free = self.kept_checkpoints * self.checkpoint_bytes / GIB, self.free_bytes / GIB
        checkpoints_take = counted(self.kept_checkpoints, "checkpoint takes", "checkpoints take")
        yield f"{checkpoints_take} {kept:.3f} GiB of {free:.0f} GiB that are free"
        if self.is_measured:
            yield f"a stop takes {self.save_seconds:.1f} s (measured)"
        else:
            how = f"at {ASSUMED_WRITE_BYTES_PER_SECOND / 1e6:.0f} MB/s; not measured yet"
            yield f"a stop takes a step and {self.save_seconds:.2f} s for its save ({how})"


def make(config: RunConfig, profile: ClusterConfig, folder: RunFolder) -> Plan:
    """Return the plan; ValueError with every problem that the queue would only have delayed."""
    micro_batches = config.train.micro_batches_per_rank(profile.world_size)
    parameters = total(network_cost(config.model)).parameters
    step_seconds, save_seconds = _measured(folder)
    state, activations = memory(config, profile, trained_share(config))
    saved = checkpoint_bytes(config)
    plan = Plan(
        world_size=profile.world_size,
        micro_batches=micro_batches,
        parameters=parameters,
        state_bytes=state,
        activation_bytes=activations,
        checkpoint_bytes=saved,
        has_average=config.ema.decay > 0,
        # One more is being written before an older one goes.
        kept_checkpoints=config.checkpoint.keep_last + 1 + config.checkpoint.keep_best,
        free_bytes=shutil.disk_usage(_existing(folder.path)).free,
        save_seconds=step_seconds + (save_seconds or saved / ASSUMED_WRITE_BYTES_PER_SECOND),
        is_measured=save_seconds is not None,
    )
    problems = [*_problems(plan, profile), *_shard_problems(config.data)]
    if problems:
        raise ValueError("\n  ".join([f"{folder.path} cannot run like this:", *problems]))
    return plan


def memory(config: RunConfig, profile: ClusterConfig, trained: Share) -> tuple[int, int]:
    """Return a rank's memory for the state of training, and for the activations of a micro-batch."""
    micro_batches = config.train.micro_batches_per_rank(profile.world_size)
    parameters = total(network_cost(config.model)).parameters
    kept = {"beside": num_beside(config.optimizer, config.ema), "frozen": num_frozen(config)}
    state = state_bytes(parameters, config.train.zero_stage, profile.world_size, **kept)
    return state, _activations(config, profile, micro_batches, trained)


def checkpoint_bytes(config: RunConfig) -> int:
    """Return the bytes of one checkpoint: the weights, and what is kept beside them."""
    parameters, beside = total(network_cost(config.model)).parameters, num_beside(config.optimizer, config.ema)
    return BYTES_PER_NUMBER * (parameters + beside * (parameters - num_frozen(config)))


def state_bytes(parameters: int, zero_stage: int, world_size: int, beside: int = 2, frozen: int = 0) -> int:
    """Return a rank's memory for the state of training in fp32: what ZeRO partitions is there once in all ranks.

    `beside` is how many numbers are kept beside each weight that is not `frozen`.
    """
    trained = parameters - frozen
    weights, gradients, others = (BYTES_PER_NUMBER * numbers for numbers in (parameters, trained, beside * trained))
    # Each stage divides one more kind among the ranks (ZeRO, Rajbhandari et al. 2020, section 5).
    shared = (zero_stage >= 1) * others + (zero_stage >= 2) * gradients + (zero_stage >= 3) * weights
    return weights + gradients + others - shared + shared // world_size


def parts_of_state(has_average: bool) -> str:
    """Return in words what the state of training is."""
    return "weights, gradients, moments and moving average" if has_average else "weights, gradients and moments"


def _problems(plan: Plan, profile: ClusterConfig) -> Iterator[str]:
    needed = plan.kept_checkpoints * plan.checkpoint_bytes
    if needed > plan.free_bytes:
        yield (
            f"checkpoints need {needed / GIB:.1f} GiB, {plan.free_bytes / GIB:.1f} GiB are free; "
            "put the run elsewhere or lower checkpoint.keep_last"
        )
    on_rank = plan.state_bytes + plan.activation_bytes
    on_node = on_rank * profile.processes_per_node
    on_gpus = device_type(profile) == "cuda"
    remedies = "use more nodes, a higher train.zero_stage, a smaller train.micro_batch or train.activation_memory_gib"
    if profile.gpu_memory_gib and on_gpus and on_rank > profile.gpu_memory_gib * GIB:
        yield f"a rank needs {on_rank / GIB:.1f} GiB, gpu_memory_gib is {profile.gpu_memory_gib}; {remedies}"
    if profile.memory_gib and not on_gpus and on_node > profile.memory_gib * GIB:
        yield f"a node's ranks need {on_node / GIB:.1f} GiB, memory_gib is {profile.memory_gib}; raise it or {remedies}"
    # Twice: on the day of the stop the disk may be slower than ever before.
    if profile.signal_seconds < 2 * plan.save_seconds:
        yield (
            f"signal_seconds is {profile.signal_seconds}, but a stop takes {plan.save_seconds:.0f} s; "
            f"set it to {math.ceil(4 * plan.save_seconds)}, or the time limit comes before the save is done"
        )


def device_type(profile: ClusterConfig) -> str:
    """Return where the ranks of a job with this profile train."""
    if profile.scheduler == "local":
        return local_device_type()
    return "cuda" if profile.asks_for_gpus else "cpu"


def _activations(config: RunConfig, profile: ClusterConfig, micro_batches: int, trained: Share) -> int:
    device = device_type(profile)
    samples = config.train.global_batch // profile.world_size // micro_batches
    precision = resolved(config.train, device).precision
    network = planned(config, profile.world_size, device)
    # Whole layers that are computed again cast the weights again.
    are_kept = precision == "bf16" and network.activation_checkpointing in ("none", "selective")
    copies = 2 * total(network_cost(network)).parameters if are_kept else 0
    kept = samples * activation_bytes(network, None, device=device, **element_bytes(precision))
    return round(kept * trained.activations) + copies


def _shard_problems(data: DataConfig) -> Iterator[str]:
    """Yield what is wrong with each dataset, as far as a glance shows it; of remote ones only the manifest is read."""
    # With no location at all it is Place that says so.
    for location in {data.shards, *(part.shards for part in data.datasets.values())} - {""} or {""}:
        try:
            place = Place(location, data)
            for split in place.manifest().splits.values():
                place.check(split)
        except ValueError as error:
            yield str(error)


def _measured(folder: RunFolder) -> tuple[float, float | None]:
    """Return the longest step and the longest save of the run so far, in seconds."""
    # The longest and not the mean: a stop has to fit in on a bad day too.
    step_seconds, save_seconds = 0.0, None
    for record in lines(folder.metrics_path):
        if is_number(record.get("step_seconds")):
            step_seconds = max(step_seconds, record["step_seconds"])
        if record["kind"] == "save" and is_number(record.get("seconds")):
            save_seconds = max(save_seconds or 0.0, record["seconds"])
    return step_seconds, save_seconds


def _existing(path: Path) -> Path:
    # A run that is not made yet will lie on the disk of the nearest folder above it.
    return next(parent for parent in (path.resolve(), *path.resolve().parents) if parent.exists())
