"""`perceiver plan CONFIG --nodes 128 --gpus 8`: a prediction of a run on a cluster that was not measured.

Arithmetic alone: operations and bytes of a step over what a device does of them (model/budget/hardware.py), exchanges
over links, saves over the disk. docs/scale.md has each item in a table. benchmarks/plan.py holds it against measured
steps on CPU ranks.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace

import torch
from torch import nn

from configs.run import RunConfig
from launch.lifecycle.cluster import ClusterConfig
from launch.planning.activation_policy import planned
from launch.planning.frozen_parameters import Share, num_frozen, trained_share
from launch.planning.goodput import Faults, Goodput, best_interval, goodput
from launch.planning.plan import checkpoint_bytes, memory
from model.budget.flops import network_cost, total
from model.budget.hardware import Hardware
from model.budget.step_cost import StepSeconds, StepWork, step_seconds, step_work
from model.custom import new_network
from model.training.compilation import is_compiled
from trainer.engine.arithmetic import resolved
from trainer.engine.communication import exchanges, small_messages
from trainer.engine.deepspeed_settings import settings

_UPDATE_BYTES = 40
"""Bytes moved per parameter that a rank updates: norm and clipping of the gradient, AdamW's reads and writes."""
_AVERAGE_BYTES = 28
"""Bytes moved per parameter when the moving average takes it in: two products and a sum."""
_BACKWARD_SHARE = 2 / 3
"""The backward pass's fraction of a step's computation."""


@dataclass(frozen=True)
class Cluster:
    """The machines of a run that is only thought of."""

    nodes: int
    """Nodes."""
    gpus: int
    """Devices of a node, one rank each; cores where the device is a CPU."""
    device: Hardware
    """The rates of a device."""
    interconnect_bytes_per_second: float
    """The rate of a node to other nodes, over all its adapters, in one direction."""
    disk_bytes_per_second: float
    """The rate at which all ranks together write to the shared disk."""
    commit_seconds: float
    """The time of a save besides writing its bytes: agreement, sync, rename."""
    node_mtbf_seconds: float
    """Mean time between failures of one node."""
    restart_seconds: float
    """The time from a failure to the first step of the next start: detection, queue, start, load."""

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.nodes * self.gpus

    @property
    def link_rate(self) -> float:
        """What a rank sends in a ring: one rank of a node sends to the next node, and the slowest link decides."""
        links = [self.device.link_bytes_per_second] if self.gpus > 1 else []
        # All adapters of a node at once: in a ring over nodes only one of its ranks sends outwards.
        links += [self.interconnect_bytes_per_second] if self.nodes > 1 else []
        # A rank that is alone sends nothing: no rate limits it.
        return self.device.transfer_share * min(links, default=math.inf)

    @property
    def message_seconds(self) -> float:
        """The time of a sum of a few numbers over a tree of the ranks."""
        return self.device.hop_seconds * math.ceil(math.log2(self.world_size))


@dataclass(frozen=True)
class Communication:
    """The exchanges of a step at one ZeRO stage."""

    sent_bytes: float
    """The bytes that a rank sends."""
    seconds: float
    """The time of the communication."""
    overlapped_seconds: float
    """The time that is not hidden behind computation, if the two may overlap."""


@dataclass(frozen=True)
class Step:
    """The parts of one optimizer step, in seconds, one after the other."""

    products: float
    reads: float
    elementwise: float
    update: float
    communication: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.products + self.reads + self.elementwise + self.update + self.communication


@dataclass(frozen=True)
class ClusterPlan:
    """The prediction for a run."""

    device: str
    """The source of the device's numbers."""
    world_size: int
    """Ranks."""
    global_batch: int
    """Samples of a step."""
    micro_batches: int
    """The number of micro-batches into which a rank cuts its share."""
    zero_stage: int
    """The ZeRO stage of the run."""
    precision: str
    """The precision of the matrix products."""
    overlaps: bool
    """Whether exchanges overlap with the computation, as in DeepSpeed's settings."""
    step: dict[str, float]
    """Seconds of a step by part."""
    step_seconds: float
    """The sum of the parts."""
    samples_per_second: float
    """Samples per second of all ranks together."""
    efficiency: float
    """Samples a second of a rank, as a share of those of a rank that exchanges nothing."""
    communication: dict[int, Communication]
    """Communication by ZeRO stage."""
    state_bytes: int
    """Memory of a rank for weights, gradients, moments and the moving average."""
    has_average: bool
    """Whether a moving average of the weights is kept."""
    activation_bytes: int
    """Memory of a rank for the activations of a micro-batch."""
    device_memory_bytes: float
    """Memory that the device has."""
    fits: bool
    """Whether the memory is enough."""
    checkpoint_bytes: int
    """The size of one checkpoint."""
    save_seconds: float
    """The time until a checkpoint is on the disk."""
    stall_seconds: float
    """The time for which a save stops the training."""
    job_mtbf_seconds: float
    """Mean time between failures of all nodes together."""
    interval_steps: int
    """Steps between two saves that lose least."""
    goodput: Goodput
    """The goodput with such saves."""
    steps: int
    """Steps of the run."""
    run_seconds: float
    """The time of all steps at that goodput, without evaluations."""


def cluster_plan(config: RunConfig, cluster: Cluster) -> ClusterPlan:
    """Return the plan of a run; ValueError where its batch does not divide over the ranks."""
    train, world_size = resolved(config.train, cluster.device.kind), cluster.world_size
    config = replace(config, train=train)
    micro_batches = train.micro_batches_per_rank(world_size)
    # Counted once: of a large network it takes a minute.
    trained = trained_share(config)
    work = _computation(config, cluster, trained)
    by_stage = dict(_by_stage(config, cluster, work.whole))
    own, beside = by_stage[train.zero_stage], overlaps(config, world_size, cluster.device.kind)
    step = Step(
        products=work.products,
        reads=work.reads,
        elementwise=work.elementwise,
        update=_update_seconds(config, cluster),
        communication=own.overlapped_seconds if beside else own.seconds,
    )
    state, activations = memory(config, _profile(cluster), trained)
    faults = faults_of(config, cluster, state_bytes=state)
    # In whole steps, as checkpoint.save_every_steps counts; the best interval is no shorter than one.
    interval = math.ceil(best_interval(faults, step.seconds) / step.seconds)
    ends = goodput(faults, interval * step.seconds)
    return ClusterPlan(
        device=cluster.device.source,
        world_size=world_size,
        global_batch=train.global_batch,
        micro_batches=micro_batches,
        zero_stage=train.zero_stage,
        precision=train.precision,
        overlaps=beside,
        step=asdict(step),
        step_seconds=step.seconds,
        samples_per_second=train.global_batch / step.seconds,
        efficiency=1 - step.communication / step.seconds,
        communication=by_stage,
        state_bytes=state,
        has_average=config.ema.decay > 0,
        activation_bytes=activations,
        device_memory_bytes=cluster.device.memory_bytes,
        fits=state + activations <= cluster.device.memory_bytes,
        checkpoint_bytes=checkpoint_bytes(config),
        save_seconds=faults.stall_seconds + faults.commit_seconds,
        stall_seconds=faults.stall_seconds,
        job_mtbf_seconds=faults.mean_seconds,
        interval_steps=interval,
        goodput=ends,
        steps=train.steps,
        run_seconds=train.steps * step.seconds / ends.useful,
    )


def communication(network: nn.Module, config: RunConfig, cluster: Cluster, *, computation: float) -> Communication:
    """Return the exchanges of a step of the run, beside so many seconds of computation."""
    found = exchanges(network, config.optimizer, config.train, cluster.world_size, cluster.device.kind)
    small = small_messages(config.train, cluster.world_size) * cluster.message_seconds
    # What an exchange can hide behind: nothing is computed while weights are updated.
    windows = {"backward": _BACKWARD_SHARE * computation, "passes": computation, "update": 0.0}
    whole = overlapped = small
    for each in found:
        seconds = each.sent_bytes(cluster.world_size) / cluster.link_rate + each.calls * cluster.message_seconds
        whole += seconds
        overlapped += seconds - min(windows[each.during], each.hidden_share * seconds)
    return Communication(sum(each.sent_bytes(cluster.world_size) for each in found), whole, overlapped)


def overlaps(config: RunConfig, world_size: int, device_type: str) -> bool:
    """Return whether the settings make exchanges overlap with the backward pass; stage 3 always does this."""
    train = config.train
    micro_batches = train.micro_batches_per_rank(world_size)
    # Asked of the settings, so that the plan follows whatever a run is given.
    told = settings(
        config.optimizer, train, num_micro_batches=micro_batches, world_size=world_size, device_type=device_type
    )
    return bool(told["zero_optimization"].get("overlap_comm", train.zero_stage == 3))


def faults_of(config: RunConfig, cluster: Cluster, *, state_bytes: int) -> Faults:
    """Return what the run loses time to."""
    written = cluster.commit_seconds + checkpoint_bytes(config) / cluster.disk_bytes_per_second
    # A rank copies what it holds of weights and moments, a part of all that it keeps for training.
    copied = min(state_bytes, checkpoint_bytes(config)) / cluster.device.host_rate
    is_beside = config.checkpoint.asynchronous
    return Faults(
        mean_seconds=cluster.node_mtbf_seconds / cluster.nodes,
        stall_seconds=copied if is_beside else copied + written,
        commit_seconds=written if is_beside else 0.0,
        restart_seconds=cluster.restart_seconds,
    )


def _by_stage(config: RunConfig, cluster: Cluster, computation: float) -> Iterator[tuple[int, Communication]]:
    # Shapes are enough.
    with torch.device("meta"):
        network = new_network(config.model, seed=0)
    # All stages, not only the run's: the plan is read to choose between them.
    for stage in range(4):
        staged = replace(config, train=replace(config.train, zero_stage=stage))
        yield stage, communication(network, staged, cluster, computation=computation)


def _computation(config: RunConfig, cluster: Cluster, trained: Share) -> StepSeconds:
    train, kind = config.train, cluster.device.kind
    precision = train.precision
    assert precision != "auto", "what a device computes in was not resolved"
    model = planned(config, cluster.world_size, kind)
    model = replace(model, compile=is_compiled(model.compile, kind, zero_stage=train.zero_stage))
    # Of everything alike: reads and element-wise work have a backward pass where the products have one.
    work = StepWork(*(trained.operations * part for part in astuple(step_work(model, precision, kind))))
    return step_seconds(work, train.global_batch // cluster.world_size, cluster.device, precision)


def _update_seconds(config: RunConfig, cluster: Cluster) -> float:
    # With ZeRO each rank updates its own part only.
    owners = cluster.world_size if config.train.zero_stage else 1
    moved = _UPDATE_BYTES + (_AVERAGE_BYTES / config.ema.every_steps if config.ema.decay else 0)
    trained = total(network_cost(config.model)).parameters - num_frozen(config)
    return trained / owners * moved / cluster.device.memory_rate


def _profile(cluster: Cluster) -> ClusterConfig:
    gpus = cluster.gpus if cluster.device.kind == "cuda" else 0
    return ClusterConfig(nodes=cluster.nodes, processes_per_node=cluster.gpus, gpus_per_node=gpus)
