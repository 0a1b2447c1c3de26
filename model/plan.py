"""What a network needs of a device: parameters, operations, activation memory by policy, micro-batch and speed.

Activations are those that autograd keeps between the forward and the backward pass and, where a policy computes some
again, the largest part that is held while it does; tests hold the formulas to within 10 % of what is measured.

    M tokens, C their channels, N latents, D their channels, F channels of queries and keys, V of values
"""

from dataclasses import dataclass, replace
from typing import get_args

from model.config import ActivationCheckpointing, PerceiverConfig
from model.config_outputs import AnyOutput, GridOutput
from model.cost import Cost, network_cost, num_queries, total
from model.forms import Form, read_form, tokens_learn

POLICIES: tuple[ActivationCheckpointing, ...] = get_args(ActivationCheckpointing)
# From the fastest on: recomputed operations as a share of the forward pass' grow along this list.
BY_SPEED: tuple[ActivationCheckpointing, ...] = ("none", "selective", "layers", "blocks", "offload")
# fp32 weight, gradient and two moments; see the trainer for how ZeRO divides them.
STATE_BYTES_PER_PARAMETER = 16
# Forward and backward cost three forward passes; recomputing all of it one more.
TRAINING_PASSES: dict[ActivationCheckpointing, float] = {
    "none": 3.0,
    "selective": 3.05,
    "layers": 4.0,
    "blocks": 4.0,
    "offload": 4.0,
}


@dataclass(frozen=True)
class Device:
    """What a device offers."""

    memory_bytes: int
    """Memory for weights, optimizer state and activations."""
    peak_flops: float
    """Operations a second that it reaches on this work."""


@dataclass(frozen=True)
class PolicyPlan:
    """What one policy of activation checkpointing needs and gives."""

    activation_bytes: int
    """Activations of one sample."""
    micro_batch: int | None
    """Most samples that fit on the device at once; 0 if none does, None without a device."""
    samples_per_second: float | None
    """Samples a second at the device's peak; None without a device."""


@dataclass(frozen=True)
class Plan:
    """What a network needs."""

    parts: dict[str, Cost]
    """Parameters and forward operations of each part; their sum is under "total"."""
    form: Form
    """How the latents read the tokens."""
    policies: dict[ActivationCheckpointing, PolicyPlan]
    """By the key model.activation_checkpointing."""


def plan(config: PerceiverConfig, *, device: Device | None = None, bytes_per_element: int = 4) -> Plan:
    """Return what the network needs, and what the device can do with it if there is one."""
    parts = network_cost(config)
    whole = total(parts)
    policies = {}
    for policy in POLICIES:
        activations = activation_bytes(config, policy, bytes_per_element=bytes_per_element)
        if device is None:
            policies[policy] = PolicyPlan(activations, None, None)
            continue
        free = device.memory_bytes - whole.parameters * STATE_BYTES_PER_PARAMETER
        speed = device.peak_flops / (TRAINING_PASSES[policy] * whole.flops)
        policies[policy] = PolicyPlan(activations, max(free // activations, 0), speed)
    return Plan({**parts, "total": whole}, read_form(config), policies)


def fastest_policy(
    config: PerceiverConfig, *, micro_batch: int, memory_bytes: int, bytes_per_element: int = 4
) -> ActivationCheckpointing:
    """Return the fastest policy whose activations fit into this memory; ValueError with the smallest if none does."""
    needed = {
        policy: micro_batch * activation_bytes(config, policy, bytes_per_element=bytes_per_element)
        for policy in BY_SPEED
    }
    for policy in BY_SPEED:
        if needed[policy] <= memory_bytes:
            return policy
    smallest = min(needed, key=lambda policy: needed[policy])
    raise ValueError(
        f"no policy fits {micro_batch} samples into {memory_bytes / 2**30:.2f} GiB of activations: the smallest, "
        f"{smallest}, needs {needed[smallest] / 2**30:.2f} GiB; lower the micro-batch"
    )


def activation_bytes(
    config: PerceiverConfig, policy: ActivationCheckpointing | None = None, *, bytes_per_element: int = 4
) -> int:
    """Return the bytes of one sample's activations under a policy, by default the config's."""
    config = replace(config, activation_checkpointing=policy or config.activation_checkpointing)
    return bytes_per_element * (_tokens(config) + _steps(config) + _decoder(config))


def _tokens(config: PerceiverConfig) -> int:
    """Elements of what all cross-attends read: kept by every policy."""
    M, C = config.num_tokens, config.token_width
    F, V = config.cross_attend.widths(C)
    form = read_form(config)
    if form == "separable":
        (modality,) = config.inputs.chosen().values()
        # Content and mean, their scale, and the content as it came.
        return M * (modality.content_width + 2)
    keys_values = len({i for kind, i in config.schedule() if kind == "cross_attend"}) * M * (F + V)
    raw = M * C if tokens_learn(config) else 0
    return M * C + raw + (keys_values if form == "plain" else 0)


def _steps(config: PerceiverConfig) -> int:
    """Elements of the cross-attends and blocks: what is kept, and the largest part that is computed again."""
    latents = config.num_latents * config.latent_width
    layer, cross = _layer(config), _cross_attend(config)
    reads, blocks, layers = config.num_cross_attends, config.num_blocks, config.layers_per_block
    block = layers * layer if blocks else 0
    if config.activation_checkpointing == "none":
        return reads * cross + blocks * block
    again = cross + _gradients(config)
    if config.activation_checkpointing == "layers":
        return (reads + blocks * layers) * latents + max(layer, again, _in_flight(config))
    recomputed = -(-blocks // config.checkpoint_every)
    kept_whole = (blocks - recomputed) * block
    if config.activation_checkpointing == "selective":
        absorbed = read_form(config) != "plain"
        read = cross if absorbed else latents + _products(config)
        saved = latents + layers * _products(config)
        return reads * read + recomputed * saved + kept_whole + max(block - layers * _products(config), 0)
    held = 0 if config.activation_checkpointing == "offload" else (reads + recomputed) * latents
    return held + kept_whole + max(block, again, _in_flight(config))


def _in_flight(config: PerceiverConfig) -> int:
    """Elements at the end of the forward pass that nothing keeps: the tokens as they came, a layer's intermediates."""
    raw = 0 if read_form(config) == "separable" or tokens_learn(config) else config.num_tokens * config.token_width
    return raw + 6 * config.num_latents * config.latent_width


def _gradients(config: PerceiverConfig) -> int:
    """Elements of the gradients of keys and values: those of this cross-attend and those of the later ones."""
    F, V = config.cross_attend.widths(config.token_width)
    return 2 * config.num_tokens * (F + V) if read_form(config) == "plain" else 0


def _layer(config: PerceiverConfig) -> int:
    """Elements that a self-attention layer keeps: both norms' inputs and outputs, q, k, v, what they give, the MLP."""
    N, D = config.num_latents, config.latent_width
    F, V = config.self_attend.widths(D)
    return N * (4 * D + 2 * F + 2 * V + 2 * config.self_attend.widening * D)


def _products(config: PerceiverConfig) -> int:
    """Elements of the results of a layer's matrix products."""
    N, D = config.num_latents, config.latent_width
    F, V = config.self_attend.widths(D)
    return N * (2 * F + 2 * V + 2 * D + config.self_attend.widening * D)


def _cross_attend(config: PerceiverConfig) -> int:
    """Elements that a cross-attend keeps at the side of the latents."""
    N, D, C = config.num_latents, config.latent_width, config.token_width
    F, V = config.cross_attend.widths(C)
    around = N * (4 * D + F + V + 2 * config.cross_attend.widening * D)
    return around + (4 * N * C if read_form(config) != "plain" else 0)


def _decoder(config: PerceiverConfig) -> int:
    """Elements of the queries' way through the decoder, without recomputation."""
    N, D, E = config.num_latents, config.latent_width, config.decoder_width
    if not E:
        return 0
    F, V = config.decoder.cross_attend.widths(D)
    per_query = 4 * E + F + V + 2 * config.decoder.cross_attend.widening * E
    asked = (output for output in config.outputs.chosen().values() if config.query_width(output))
    return N * (D + F + V) + sum(_asked(output, config) for output in asked) * per_query


def _asked(output: AnyOutput, config: PerceiverConfig) -> int:
    """Queries of a sample in training."""
    some = output.train_queries if isinstance(output, GridOutput) else 0
    return some or num_queries(output, config)
