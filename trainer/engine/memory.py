"""Halves the micro-batch until it fits. Out of memory is found before training, where all ranks can still agree.

In the middle of a step they cannot: who ran out would leave the others waiting in a collective. The trial is the step
itself, but for its exchanges and its update: the same precision, the same compiled functions, the same loss. It leaves
no trace.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.network import AnyNetwork
from trainer.config import TrainConfig
from trainer.distributed.world import World
from trainer.engine import arithmetic
from trainer.engine.deepspeed_settings import INITIAL_LOSS_SCALE
from trainer.tasks.objective import Objective, contagious

_BYTES_PER_NUMBER = 4  # all of the state is fp32


def fitting(
    network: nn.Module, objective: Objective, share: Batch, train: TrainConfig, world: World, beside: int = 2
) -> TrainConfig:
    """Return the configuration with the largest micro-batch, halved from its own, that fits on every rank. Collective.

    Tries a forward and a backward pass of one micro-batch beside as much memory as the state will take, with `beside`
    numbers beside each weight. ValueError if a single sample does not fit, or if an operation has no deterministic form
    where the configuration wants one.
    """
    train = arithmetic.resolved(train, world.device.type)
    network.to(world.device)
    while True:
        parts = train.micro_batches_per_rank(world.world_size)
        rows = len(share.keys) // parts
        # Alike on all ranks: at ZeRO 2 and 3 every micro-batch has exchanges, in which all must take part.
        if not world.agree(not _fits(network, objective, share, train, parts, world.device, beside)):
            return train
        if rows == 1:
            raise ValueError(
                "one sample a micro-batch does not fit into the memory of the device; take a smaller network, "
                "model.activation_checkpointing=blocks, or a higher train.zero_stage"
            )
        train = replace(train, micro_batch=_smaller_divisor(len(share.keys), rows))


def _fits(
    network: nn.Module,
    objective: Objective,
    share: Batch,
    train: TrainConfig,
    parts: int,
    device: torch.device,
    beside: int,
) -> bool:
    fits = True
    with _no_trace(network, device):
        try:
            _try(network, objective, share.to(device), train, parts, beside)
        except torch.OutOfMemoryError:
            fits = False
    return fits


def _try(network: nn.Module, objective: Objective, share: Batch, train: TrainConfig, parts: int, beside: int) -> None:
    """Do what a step does with its first micro-batch, as far as one rank can alone."""
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    device = share.weights.device
    # A trial on an empty device would pass, and the first step, with the optimizer beside it, would not.
    # Weight and gradient, and what is kept beside them, as ZeRO 0 has them.
    ballast = torch.empty(num_parameters * (2 + beside) * _BYTES_PER_NUMBER, dtype=torch.uint8, device=device)
    counts = {task: count.clamp(min=1.0) for task, count in objective.counts(share).items()}
    if isinstance(network, AnyNetwork):
        network.observe(share.arrays, share.host_lengths, Tensor.clone)
    called, scale = _in_precision(network, train.precision, device.type)
    with arithmetic.refusing_by_name():
        loss = objective.loss(objective.sums(called, share.micro_batches(parts)[0]), counts)
        (contagious(loss) * scale).backward()  # type: ignore[no-untyped-call]
    del ballast


def _in_precision(network: nn.Module, precision: str, device_type: str) -> tuple[Any, float]:
    """Return the network as the engine calls it in this precision, and the scale of its loss."""
    if precision == "fp16":
        # As DeepSpeed does in fp16, which has no autocast here.
        for parameter in network.parameters():
            parameter.data = parameter.data.half()
        return network, INITIAL_LOSS_SCALE
    dtype = torch.bfloat16 if precision == "bf16" else None

    def called(*inputs: object, **options: object) -> object:
        with torch.autocast(device_type, dtype=dtype) if dtype else nullcontext():
            return network(*inputs, **options)

    return called, 1.0


@contextmanager
def _no_trace(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Leave weights, gradients, statistics, random numbers and the device's memory as they were."""
    parameters = [(parameter, parameter.data, parameter.grad) for parameter in network.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    is_cuda = device.type == "cuda"
    for parameter, _, _ in parameters:
        parameter.grad = None
    # The devices are named, since fork_rng would else save the state of every GPU that is visible.
    with torch.random.fork_rng(devices=[device.index] if is_cuda else []):
        try:
            yield
        finally:
            if isinstance(network, AnyNetwork):
                network.settle(is_kept=False)
            for parameter, values, gradient in parameters:
                parameter.data, parameter.grad = values, gradient
            with torch.no_grad():
                for buffer, values in buffers:
                    buffer.copy_(values)
            if is_cuda:
                # torch keeps what a trial has freed; and the peak that log lines report is to be that of the steps.
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)


def _smaller_divisor(share: int, rows: int) -> int:
    """Return the largest divisor of the share that is at most half of the rows."""
    return next(divisor for divisor in range(rows // 2, 0, -1) if share % divisor == 0)
