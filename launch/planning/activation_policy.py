"""The choice of the activation checkpointing policy, for the ranks that a run has."""

import os
from dataclasses import replace

from configs.run import RunConfig
from model.budget.flops import network_cost, total
from model.budget.plan import fastest_policy
from model.config.perceiver import PerceiverConfig
from trainer.engine.arithmetic import resolved

GIB = 2**30
_WEIGHT_BYTES = 4


def element_bytes(precision: str) -> dict[str, int]:
    """Return the bytes of an activation's element as model.budget.activation_memory takes them.

    bf16 is autocast, which leaves the residual stream in fp32; in fp16 the weights themselves are halves.
    """
    return {
        "bytes_per_element": 4 if precision == "fp32" else 2,
        "stream_bytes": 2 if precision == "fp16" else 4,
    }


def refuse_large(network: PerceiverConfig) -> None:
    """Raise ValueError where the weights alone are larger than this machine's memory, in which they are made."""
    parameters = total(network_cost(network)).parameters
    # Of the machine and not what is free: the network would not fit into an empty machine either.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if parameters * _WEIGHT_BYTES > memory:
        raise ValueError(
            f"model: has {parameters:,} parameters, {parameters * _WEIGHT_BYTES / GIB:,.0f} GiB of weights, and this "
            f"machine {memory / GIB:,.0f} GiB of memory; `perceiver plan` prints which part has how many"
        )


def planned(config: RunConfig, world_size: int, device: str) -> PerceiverConfig:
    """Return the network with the fastest policy that fits into train.activation_memory_gib, or as it is for 0.

    `device` is the type of that on which it trains, which decides what precision "auto" means and what a layer keeps.
    No policy changes a result, so that another number of ranks may take another one. ValueError if none fits.
    """
    train, network = resolved(config.train, device), config.model
    if not train.activation_memory_gib:
        return network
    if network.network is not None:
        raise ValueError(
            "train.activation_memory_gib: chooses among the Perceiver's policies, and model.network is "
            f"{network.network.kind}; leave it out, and lower train.micro_batch"
        )
    # Fewer samples at a time need less, so that a policy that recomputes less may fit on more ranks.
    micro_batch = train.global_batch // world_size // train.micro_batches_per_rank(world_size)
    try:
        policy = fastest_policy(
            network,
            micro_batch=micro_batch,
            memory_bytes=int(train.activation_memory_gib * GIB),
            **element_bytes(train.precision),
            device=device,
        )
    except ValueError as error:
        raise ValueError(f"train.activation_memory_gib: {error}") from None
    return replace(network, activation_checkpointing=policy)
