"""The start of DeepSpeed: the only module that imports it, and the environment that it needs."""

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trainer.config import TrainConfig
from trainer.distributed.world import World


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Make torch.compile leave functions as they are."""
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TORCHDYNAMO_DISABLE"]
        if before is not None:
            os.environ["TORCHDYNAMO_DISABLE"] = before


@contextlib.contextmanager
def group_timeout(seconds: float) -> Iterator[None]:
    """Make new process groups give up after our timeout: those that DeepSpeed clones would wait for 30 minutes."""
    # The timeout of init_process_group does not reach groups that are made later; measured with a peer that slept 60 s.
    original = dist.new_group

    def with_timeout(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # whatever torch takes
        return original(*args, **{"timeout": timedelta(seconds=seconds), **kwargs})

    dist.new_group = with_timeout
    try:
        yield
    finally:
        dist.new_group = original


def initialize(
    network: nn.Module, inner: torch.optim.Optimizer, config: dict[str, Any], train: TrainConfig, world: World
) -> Any:  # noqa: ANN401  # DeepSpeed is untyped
    """Return DeepSpeed's engine over the network. Collective."""
    deepspeed = _import_deepspeed(world)
    if train.gradient_dtype == "bf16":
        # Under autocast DeepSpeed asks each parameter in which type its gradient travels.
        for parameter in network.parameters():
            parameter.comm_dtype = torch.bfloat16  # type: ignore[attr-defined]
    with group_timeout(train.collective_timeout_seconds), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = _engine(deepspeed, train.precision, world, model=network, optimizer=inner, config=config)
    # DeepSpeed ignores keys that it does not know: a misspelt one gives stage 0 without a word.
    assert engine.zero_optimization_stage() == train.zero_stage, "DeepSpeed took another stage than it was given"
    if train.precision == "fp16":
        # It would raise an error of its own where a gradient is not finite at the lowest scale. That is a step like any
        # other that is skipped, see trainer/health/spikes.py.
        engine.optimizer.loss_scaler.raise_error_at_min_scale = False
    return engine


def _engine(deepspeed: Any, precision: str, world: World, **parts: object) -> Any:  # noqa: ANN401
    try:
        return deepspeed.initialize(**parts)[0]
    except ValueError as error:
        if "is not supported on your device" not in str(error):
            raise
        raise ValueError(
            f"train.precision = {precision}: {world.device} does not compute in it; take fp32 or bf16"
        ) from error


def _import_deepspeed(world: World) -> Any:  # noqa: ANN401
    """Import it late: it reads the environment and picks an accelerator while it is imported."""
    if world.device.type == "cpu":
        # deepspeed.initialize requires the first variable, of a process alone too. Without the second each rank prints
        # a warning about the accelerator.
        os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    else:
        # It takes the variable for the number of the device, of which a process may see but one.
        os.environ["LOCAL_RANK"] = str(world.device.index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
        from deepspeed.ops import __compatible_ops__
    # It would be compiled at start-up (a minute, and a compiler) for an inference call that is never made.
    __compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed imports Muon, which compiles itself; loading the compiler for that takes a second.
    with uncompiled(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    # It logs to standard output, where --json prints one object. And torch warns, on each rank, of a call of
    # DeepSpeed's.
    deepspeed.utils.logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed|deepspeed")
    return deepspeed


def gathered(parameters: list[nn.Parameter], zero_stage: int) -> contextlib.AbstractContextManager[None]:
    """Give back the whole of parameters that ZeRO 3 has cut, to read or to overwrite. Collective."""
    if zero_stage < 3 or not parameters:
        return contextlib.nullcontext()
    import deepspeed

    # What rank 0 writes inside the block reaches the other ranks at its end.
    gathered: contextlib.AbstractContextManager[None] = deepspeed.zero.GatheredParameters(parameters, modifier_rank=0)
    return gathered


@contextlib.contextmanager
def waiting_on_the_device(optimizer: Any) -> Iterator[None]:  # noqa: ANN401
    """Let streams wait for each other where DeepSpeed would have the host wait for all of them.

    At ZeRO 1 and 2 it does so before each exchange during the backward pass, and after the last.
    """
    if not getattr(optimizer, "overlap_comm", False) or optimizer.reduction_stream is None:
        yield
        return
    from deepspeed.accelerator import get_accelerator

    accelerator, exchange = get_accelerator(), optimizer.reduction_stream

    def meet(*_: object) -> None:
        # Gradients must be there before they travel, and have arrived before their memory is used again.
        computing = accelerator.current_stream()
        exchange.wait_stream(computing)
        computing.wait_stream(exchange)

    # On the object, over the method of its class: `del` brings the method back.
    accelerator.synchronize = meet
    try:
        yield
    finally:
        del accelerator.synchronize
