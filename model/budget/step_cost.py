"""The work of a training step per sample: products, cross-attention, element-wise work; from the config alone.

Products are counted as in cost.py, with what a policy computes again. Reads are those of forms.py, in operations of a
product that take as long. Element-wise work is what norms, residual sums, activations, casts and sums over rows move
through memory: of layers that are compiled, what the compiler fuses; of all else, one kernel each.
tests/model/test_step_cost.py and test_fused_traffic.py hold it against counts.
"""

from dataclasses import astuple, dataclass, replace
from operator import mul

from model.attention.read_costs import READ_CONSTANTS
from model.attention.read_forms import read_costs, read_form
from model.budget.activation_memory import activation_bytes
from model.budget.flops import gathering, total, training_cost
from model.budget.hardware import Hardware, Kind, Precision
from model.budget.plan import TRAINING_PASSES
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.training.compilation import is_compiled

_BYTES = 4
_SAVED_BY_NARROW_STREAM = 19
"""Moves for each element of a layer's input, of four bytes, as counted on a GPU's operations."""
_SAVED_BY_NARROW_STREAM_COMPILED = 7.5
"""The same of a compiled layer."""


@dataclass(frozen=True)
class StepWork:
    """The work of one sample, forward and backward."""

    products: float
    """Operations of matrix products, but those with the tokens."""
    reads: float
    """Operations of a product that take as long as the cross-attends' reading."""
    softmax: float
    """Operations of a product that take as long as the softmax between the latents."""
    moved_bytes: float
    """The bytes that element-wise work reads and writes."""


@dataclass(frozen=True)
class StepSeconds:
    """The times of the parts of that work on a device."""

    products: float
    reads: float
    elementwise: float

    @property
    def whole(self) -> float:
        """The total time."""
        return self.products + self.reads + self.elementwise


def step_work(config: PerceiverConfig, precision: Precision, kind: Kind = "cpu") -> StepWork:
    """Return the work of one sample on a kind of device, the mean over the numbers of latents that steps draw.

    Of a plug-in's network it is the products, and what is kept for the backward pass, written and read: of its
    element-wise work no more is known.
    """
    if config.network is not None:
        products = 3.0 * total(training_cost(config)).flops + gathering(config)
        return StepWork(products, 0.0, 0.0, 2.0 * activation_bytes(config))
    # In the form of the whole network, which all its sizes are trained in.
    config = replace(config, cross_attend_form=read_form(config, kind))
    works = [astuple(_work(config.with_latents(size), precision, kind)) for size in config.latent_sizes]
    shares = config.latent_shares.values()
    return StepWork(*(sum(map(mul, shares, parts)) for parts in zip(*works, strict=True)))


def _work(config: PerceiverConfig, precision: Precision, kind: Kind) -> StepWork:
    forward = len(config.passes())
    # These passes run once without gradients before they run again with them.
    gathered = sum(any(output.views() for output in outputs.values()) for outputs in config.passes())
    once = TRAINING_PASSES[config.activation_checkpointing]
    passes = once * forward + gathered
    M, C, N = config.num_tokens, config.token_width, config.num_latents
    F, V = config.cross_attend.widths(C)
    # Counted by training_cost among all operations; what they take in fact depends on the form, and is in `reads`.
    with_tokens = config.num_cross_attends * 2 * M * (C + N) * (F + V)
    layers = config.num_blocks * config.layers_per_block
    # Reads, softmax and moves are known of a whole training pass, which is a forward pass and two as long backwards.
    return StepWork(
        products=once * total(training_cost(config)).flops + gathering(config) - passes * with_tokens,
        reads=passes / 3 * read_costs(config, kind)[read_form(config, kind)],
        softmax=passes / 3 * layers * config.self_attend.num_heads * N * N * READ_CONSTANTS[kind].plain,
        moved_bytes=passes / 3 * _BYTES * _moved_elements(config, kind, is_half=precision != "fp32"),
    )


def step_seconds(work: StepWork, samples: int, device: Hardware, precision: Precision) -> StepSeconds:
    """Return how long so many samples take, one part after the other."""
    rate = device.product_rate(precision)
    return StepSeconds(
        products=samples * work.products / rate,
        reads=samples * work.reads / rate,
        elementwise=samples * (work.moved_bytes / device.memory_rate + work.softmax / rate),
    )


def _moved_elements(config: PerceiverConfig, kind: Kind, *, is_half: bool) -> float:
    """Elements read and written, as if all had four bytes: in half precision the casts take what narrow ones save."""
    N, D, E = config.num_latents, config.latent_width, config.decoder_width
    layers = config.num_blocks * config.layers_per_block
    compiles = is_half and is_compiled(config.compile, kind)
    narrow = _SAVED_BY_NARROW_STREAM_COMPILED if compiles else _SAVED_BY_NARROW_STREAM
    saved = narrow if is_half and config.residual_dtype == "bf16" else 0

    def of_layer(attention: AttentionConfig, default_width: int) -> float:
        if compiles:
            return _per_element_compiled(attention.mlp_ratio)
        return _per_element(attention.mlp_ratio, is_half=is_half) + _of_options(config, attention, default_width, kind)

    # The queries of a training batch, which may be a random part of those of an answer.
    asked = (output for output in config.answers().values() if output.own_width(config))
    queries = sum(output.num_trained(config) for output in asked)
    latents = (
        N
        * D
        * (
            layers * (of_layer(config.self_attend, D) - saved)
            + config.num_cross_attends * (of_layer(config.cross_attend, config.token_width) - saved)
        )
    )
    return (
        latents
        + queries * E * _per_element(config.decoder.cross_attend.mlp_ratio, is_half=is_half)
        + _tokens(config, kind)
    )


def _per_element(mlp_ratio: int, *, is_half: bool) -> float:
    """Moves for each element of a layer's input: two norms, two residual sums, five sums of gradients, biases, GELU."""
    return 44.0 + 3 * mlp_ratio if is_half else 33.0 + 6 * mlp_ratio


def _of_options(config: PerceiverConfig, attention: AttentionConfig, default_width: int, kind: Kind) -> float:
    """Moves that the options add for each element of a layer's input, as counted in fp32; compiled code fuses them."""
    # PyTorch has one kernel for RMSNorm on a GPU, and on a CPU a chain of operations.
    norms = 26.0 if kind == "cpu" else 0.0
    heads = attention.widths(default_width)[0] / config.latent_width
    return (
        2 * norms * (config.norm == "rms")
        + (3.0 + 10.0 * attention.mlp_ratio) * (config.mlp != "gelu")
        + (9.0 + 2.3 * norms) * heads * attention.qk_norm
        + 49.0 * heads * attention.rotary
        + 121.0 * (config.dropout > 0)
        + 8.0 * (config.drop_path > 0)
    )


def _per_element_compiled(mlp_ratio: int) -> float:
    """The same in half precision where what lies between two products is one kernel, as Inductor plans it."""
    return 23.6 + 2.7 * mlp_ratio


def _tokens(config: PerceiverConfig, kind: Kind) -> int:
    """Putting the tokens together and their norm, and the sums of gradients from several cross-attends."""
    form = read_form(config, kind)
    if form == "separable":
        return 0
    gradients = sum(config.cross_attend.widths(config.token_width)) if form == "plain" else 0
    return config.num_tokens * (6 * config.token_width + 3 * (config.num_cross_attends - 1) * gradients)
