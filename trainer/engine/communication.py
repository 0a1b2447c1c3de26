"""What the ranks exchange in one optimizer step, by ZeRO stage, as DeepSpeed does it under `deepspeed_settings`.

Counted on gloo and on fake process groups (tests/trainer/test_communication.py). At stages 1 and 2 DeepSpeed sums whole
gradients over all ranks and throws away what a rank does not own, so that they send twice what a reduce-scatter would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from trainer.config import OptimizerConfig, TrainConfig
from trainer.engine.deepspeed_settings import settings
from trainer.optim.groups import parameter_groups

Kind = Literal["all_reduce", "all_gather", "reduce_scatter"]
_SMALL_MESSAGES = {0: 2, 1: 3, 2: 3, 3: 4}
"""Counts, with what the ranks want of the run, and losses; from stage 1 on the norm."""


_PREFETCHED_ELEMENTS = 50_000_000
"""The number of weights that stage 3 gathers at once, DeepSpeed's default."""


@dataclass(frozen=True)
class Exchange:
    """What one kind of collective moves in a step."""

    kind: Kind
    """The collective."""
    num_bytes: int
    """Bytes of the whole tensors, summed over the calls of a step."""
    calls: int
    """The number of calls per step."""
    during: Literal["backward", "passes", "update"]
    """When it can run: beside the backward pass, beside both passes, or only after the update of the weights."""

    def sent_bytes(self, world_size: int) -> float:
        """Return what a rank sends if the ranks form a ring."""
        return (2 if self.kind == "all_reduce" else 1) * self.num_bytes * (world_size - 1) / world_size

    @property
    def hidden_share(self) -> float:
        """The fraction that can run beside computation: all but the last bucket, which waits for the last gradient."""
        return 0.0 if self.during == "update" else 1 - 1 / self.calls


def exchanges(
    network: nn.Module, optimizer: OptimizerConfig, train: TrainConfig, world_size: int, device_type: str
) -> tuple[Exchange, ...]:
    """Return the exchanges of a step that move tensors of the network; a network on the meta device will do."""
    if world_size == 1:
        return ()
    groups = [[parameter.numel() for parameter in group["params"]] for group in parameter_groups(network, optimizer)]
    micro_batches = train.micro_batches_per_rank(world_size)
    chosen = settings(
        optimizer, train, num_micro_batches=micro_batches, world_size=world_size, device_type=device_type
    )["zero_optimization"]
    # bf16 is autocast: weights and gradients under way stay fp32.
    width = 2 if train.precision == "fp16" else 4
    if train.zero_stage == 3:
        return _of_stage_3(groups, chosen, micro_batches, world_size, width)
    # Stage 2 lets go of the gradients after each micro-batch, and has to sum them before.
    times = micro_batches if train.zero_stage == 2 else 1
    numel = sum(map(sum, groups))
    calls = times * -(-numel // chosen["reduce_bucket_size"])
    sent = 2 if train.gradient_dtype == "bf16" else width
    gradients = Exchange("all_reduce", times * sent * numel, calls, "backward")
    if train.zero_stage == 0:
        return (gradients,)
    # Each group is one flat tensor, padded to an even cut.
    # By twice the world size: in 16 bits each rank's part then begins at a multiple of 4 bytes, as DeepSpeed has it.
    flat = [_padded(sum(group), 2 * world_size) for group in groups]
    calls = sum(-(-numel // chosen["allgather_bucket_size"]) for numel in flat)
    return gradients, Exchange("all_gather", width * sum(flat), calls, "update")


def small_messages(train: TrainConfig, world_size: int) -> int:
    """Return how many sums of a few numbers a step needs beside the exchanges."""
    return _SMALL_MESSAGES[train.zero_stage] if world_size > 1 else 0


def _of_stage_3(
    groups: Sequence[Sequence[int]], chosen: dict[str, Any], micro_batches: int, world_size: int, width: int
) -> tuple[Exchange, ...]:
    """Return the exchanges of stage 3: large weights are gathered for each micro-batch, small ones after the update.

    Below a thousand million parameters DeepSpeed keeps what it gathered from the forward to the backward pass.
    """
    threshold = chosen["stage3_param_persistence_threshold"]
    numels = [numel for group in groups for numel in group]
    large = [_padded(numel, world_size) for numel in numels if numel >= threshold]
    small = [_padded(numel, world_size) for numel in numels if numel < threshold]
    every = sum(large) + sum(small)
    found = [Exchange("reduce_scatter", micro_batches * width * every, micro_batches, "backward")]
    if large:
        calls = micro_batches * -(-sum(large) // _PREFETCHED_ELEMENTS)
        found.append(Exchange("all_gather", micro_batches * width * sum(large), calls, "passes"))
    if small:
        found.append(Exchange("all_gather", width * sum(small), len(small), "update"))
    return tuple(found)


def _padded(numel: int, multiple: int) -> int:
    return -(-numel // multiple) * multiple
