"""Activation memory of a training step, from the config alone. Tests keep it within 10 % of measurements.

Activations are those that autograd keeps between the forward and the backward pass and, where a policy computes some
again, the largest part that is held while it does. Under autocast what matrix products take and give is in half
precision; the residual stream, what norms take and the inputs stay in float32.

    forward    step 0  step 1  ...  step n          held = what all of them keep
    backward   step n   held + what n computes again + gradients so far
               step n-1 held - kept by n + what n-1 computes again + ...
               ...      the answer is the largest of these moments

    M tokens, C their channels, N latents, D their channels, F channels of queries and keys, V of values
"""

from dataclasses import dataclass, replace

from model.attention.read_forms import read_form
from model.config.attention import AttentionConfig
from model.config.cost import Kept
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig
from model.outputs.output import Output

FULL = 4
# Arrays of the latents' size that are there beside what is computed again, gradients of a layer's results: as measured
# on a CPU, and counted from shapes on a GPU, where they are gone when the gradients of the tokens come.
FLYING_ON_CPU = 4
FLYING: dict[ActivationCheckpointing, float] = {"none": 0, "selective": 4, "layers": 1.5, "blocks": 1, "offload": 3}


@dataclass(frozen=True)
class Bytes:
    """Bytes per number, by what the number is."""

    product: int
    """Bytes per number of the inputs and outputs of matrix products."""
    stream: int
    """Bytes per number of everything else, without the residual stream of the latents."""
    residual: int
    """Bytes per number of the residual stream of the latents."""
    chain: int
    """Bytes per number that an RMSNorm keeps beside its input and result: on a CPU it is a chain of operations."""


def activation_bytes(
    config: PerceiverConfig,
    policy: ActivationCheckpointing | None = None,
    *,
    bytes_per_element: int = FULL,
    stream_bytes: int = FULL,
    device: str = "cpu",
) -> int:
    """Return the bytes of one sample's activations under a policy, by default the config's, on a kind of device.

    `bytes_per_element` are of what matrix products take and give, `stream_bytes` of all else: under autocast to half
    precision 2 and 4, and where the weights are in half precision themselves 2 and 2.
    """
    if config.network is not None:
        from model.budget.custom import network_measured

        return len(config.passes()) * network_measured(config).activation_bytes
    config = replace(
        config,
        activation_checkpointing=policy or config.activation_checkpointing,
        cross_attend_form=read_form(config, device),
    )
    is_narrow = config.residual_dtype == "bf16" and bytes_per_element < FULL
    chain = bytes_per_element if device == "cpu" else 0
    width = Bytes(bytes_per_element, stream_bytes, bytes_per_element if is_narrow else stream_bytes, chain)
    adapters, stem_gradients = _adapters(config, width)
    first, *others = config.passes()
    reading = _tokens(config, width) + _steps(config, width, device) + _decoder(config, first, width)
    # The convolution's gradients come last, when all else is gone but the tokens'.
    stem = stem_gradients + config.num_tokens * config.token_width * width.stream
    # All passes of a sample are kept until the backward pass, which goes through one after the other.
    kept = adapters + _tokens(config, width) + sum(_kept_and_again(config, width)[0])
    return adapters + max(reading, stem) + sum(kept + _decoder(config, outputs, width) for outputs in others)


def _adapters(config: PerceiverConfig, width: Bytes) -> tuple[int, int]:
    """Bytes that linear layers and convolutions before the tokens keep, and of the convolutions' own gradients."""
    kept = sum((each.kept() for each in config.ordered_inputs.values()), Kept())
    return kept.values * width.product + kept.other_bytes, kept.gradients * width.product


def _tokens(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes of what all cross-attends read: kept by every policy, but offload has inputs in the host's memory."""
    M, C = config.num_tokens, config.token_width
    form = read_form(config)
    if form == "separable":
        (modality,) = config.ordered_inputs.values()
        # Content and mean, their scale, and the content as it came.
        return M * (modality.content_width + 2) * FULL
    raw = M * C * width.stream if config.tokens_learn else 0
    keys_values = 0 if config.activation_checkpointing == "offload" else _keys_values(config, width)
    return raw + M * C * width.product + keys_values


def _keys_values(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes of the keys and values of the plain form, of all modules."""
    # By modules and not by reads: cross-attends that share their weights share keys and values, too.
    modules = len({index for kind, index in config.schedule() if kind == "cross_attend"})
    F, V = config.cross_attend.widths(config.token_width)
    # Keys before their norm, too.
    widths = F * (1 + config.cross_attend.qk_norm) + V
    return modules * config.num_tokens * widths * width.product if read_form(config) == "plain" else 0


def _restored(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes of what a cross-attend reads that come back from the host's memory."""
    if config.activation_checkpointing != "offload":
        return 0
    M, C = config.num_tokens, config.token_width
    read = {"plain": sum(config.cross_attend.widths(C)), "absorbed": C, "separable": 0}[read_form(config)]
    return M * read * width.product


def _steps(config: PerceiverConfig, width: Bytes, device: str) -> int:
    """Bytes of the cross-attends and blocks when they are most: kept, computed again, or gradients of the tokens.

    The backward pass goes through the schedule from its end. What it has done with is gone, but the gradients of the
    tokens stay until the first cross-attend.
    """
    gradients, restored = _token_gradients(config, width), _restored(config, width)
    latents = config.num_latents * config.latent_width * width.residual
    on_cpu = device == "cpu"
    # Dropout draws with whole numbers of eight bytes, four of which are there for each value.
    drawing = 4 * 8 * config.num_latents * config.latent_width if config.dropout else 0
    flying = drawing + int((FLYING_ON_CPU if on_cpu else FLYING[config.activation_checkpointing]) * latents)
    kept, again = _kept_and_again(config, width)
    held = sum(kept)
    # The end of the forward pass may hold more than any moment of the backward pass.
    most = held + drawing + _in_flight(config, width)
    later = 0
    kinds = [kind for kind, _ in config.schedule()]
    # What the step before it read is on its way back while a step is computed again.
    reads = [restored * (kind == "cross_attend") for kind in kinds]
    comings = [0, *reads[:-1]]
    for kind, its_kept, its_again, *back in reversed(list(zip(kinds, kept, again, reads, comings, strict=True))):
        own, read = gradients if kind == "cross_attend" else 0, sum(back)
        beside = flying if its_again else 0
        most = max(most, held + its_again + read + later + (own + beside if on_cpu else max(own, beside)))
        # The gradients of the tokens are one array, to which every further read adds.
        held, later = held - its_kept, max(later, own)
    return most


def _kept_and_again(config: PerceiverConfig, width: Bytes) -> tuple[list[int], list[int]]:
    """Bytes that each step of the schedule keeps, and that it computes again in the backward pass."""
    latents, layers = config.num_latents * config.latent_width * width.residual, config.layers_per_block
    layer, cross = _layer(config, width), _cross_attend(config, width)
    block, products = layers * layer, layers * _products(config, width)
    read = _read_products(config, width)
    whole = {"cross_attend": (cross, 0), "block": (block, 0)}
    absorbed = read_form(config) != "plain"
    recomputed = {
        "none": whole,
        "layers": {"cross_attend": (latents, cross), "block": (layers * latents, layer)},
        "blocks": {"cross_attend": (latents, cross), "block": (latents, block)},
        "offload": {"cross_attend": (0, cross), "block": (0, block)},
        "selective": {
            "cross_attend": (cross, 0) if absorbed else (latents + read, cross - read),
            "block": (latents + products, block - products),
        },
    }[config.activation_checkpointing]
    every = 1 if config.activation_checkpointing == "layers" else config.recompute_every_blocks
    kept, again, num_blocks = [], [], 0
    for kind, _ in config.schedule():
        # Layers are computed again in every block.
        is_whole = kind == "block" and num_blocks % every
        its_kept, its_again = (whole if is_whole else recomputed)[kind]
        kept.append(its_kept)
        again.append(its_again)
        num_blocks += kind == "block"
    return kept, again


def _in_flight(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes at the end of the forward pass that nothing keeps: the tokens as they came, a layer's intermediates."""
    raw = 0 if read_form(config) == "separable" or config.tokens_learn else config.num_tokens * config.token_width
    policy, latents = config.activation_checkpointing, config.num_latents * config.latent_width
    recomputes = policy in ("blocks", "layers", "offload")
    read = _keys_values(config, width) if policy == "offload" else 0
    return raw * width.stream + 6 * recomputes * latents * width.residual + read


def _token_gradients(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes of the gradients that a cross-attend gives to what it reads, and of their sum over cross-attends."""
    C = config.token_width
    if read_form(config) == "plain":
        return config.num_tokens * sum(config.cross_attend.widths(C)) * width.product
    return config.num_tokens * C * width.product if config.tokens_learn else 0


def _layer(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes that a self-attention layer keeps: both norms' inputs and outputs, q, k, v, what they give, the MLP."""
    N, D = config.num_latents, config.latent_width
    F, V = config.self_attend.widths(D)
    hidden = _hidden(config, config.self_attend, D)
    # Queries and keys before their norm, too.
    projected = 2 * F * (1 + config.self_attend.qk_norm) + 2 * V
    around = N * (2 * D * width.residual + (2 * D + projected + hidden) * width.product + _masks(config, D))
    return around + N * width.chain * (2 * D * (config.norm == "rms") + 2 * F * config.self_attend.qk_norm)


def _hidden(config: PerceiverConfig, attention: AttentionConfig, width: int) -> int:
    """Numbers that a row of an MLP keeps: before and after the GELU; of a gated one all three factors."""
    return (2 if config.mlp == "gelu" else 4) * attention.mlp_ratio * width


def _masks(config: PerceiverConfig, width: int) -> int:
    """Bytes of what the dropout of a layer's two branches keeps of a row: which values it leaves."""
    return 2 * width if config.dropout else 0


def _products(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes of the results of a layer's matrix products."""
    N, D = config.num_latents, config.latent_width
    F, V = config.self_attend.widths(D)
    hidden = (1 if config.mlp == "gelu" else 2) * config.self_attend.mlp_ratio * D
    return N * (2 * F + 2 * V + 2 * D + hidden) * width.product


def _read_products(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes of the results of a cross-attend's matrix products, without keys and values."""
    D = config.latent_width
    F, V = config.cross_attend.widths(config.token_width)
    hidden = (1 if config.mlp == "gelu" else 2) * config.cross_attend.mlp_ratio * D
    return config.num_latents * (F + V + 2 * D + hidden) * width.product


def _cross_attend(config: PerceiverConfig, width: Bytes) -> int:
    """Bytes that a cross-attend keeps at the side of the latents."""
    N, D, C = config.num_latents, config.latent_width, config.token_width
    F, V = config.cross_attend.widths(C)
    hidden, asked = _hidden(config, config.cross_attend, D), F * (1 + config.cross_attend.qk_norm)
    around = N * (2 * D * width.residual + (2 * D + asked + V + hidden) * width.product + _masks(config, D))
    around += N * width.chain * (2 * D * (config.norm == "rms") + F * config.cross_attend.qk_norm)
    form = read_form(config)
    if form == "plain":
        return around
    # What the product with the keys' weight gives and the values' product takes; the queries and what they read.
    return around + 2 * N * C * (width.product + (FULL if form == "separable" else width.product))


def _decoder(config: PerceiverConfig, answers: dict[str, Output], width: Bytes) -> int:
    """Bytes of the queries' way through the decoder in a pass, without recomputation."""
    N, D, E = config.num_latents, config.latent_width, config.decoder_width
    asked = [output for output in answers.values() if output.own_width(config)]
    pooled = (output for output in answers.values() if not output.own_width(config))
    heads = sum(output.kept_by_head(D, config) for output in pooled) * width.stream
    if not asked:
        return heads
    F, V = config.decoder.cross_attend.widths(D)
    # Queries and keys before their norm, too.
    F *= 1 + config.decoder.cross_attend.qk_norm
    # Of a decoder without an MLP the norm's input and result, the hidden channels and the second branch are not there.
    has_mlp = config.decoder.has_mlp
    hidden = _hidden(config, config.decoder.cross_attend, E) + E if has_mlp else 0
    per_query = (1 + has_mlp) * E * width.stream + (E + F + V + hidden) * width.product + _masks(config, E)
    return heads + N * (D + F + V) * width.product + sum(output.num_trained(config) for output in asked) * per_query
