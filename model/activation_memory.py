"""The memory of a training step's activations, from the config alone; tests hold it to within 10 % of what is measured.

Activations are those that autograd keeps between the forward and the backward pass and, where a policy computes some
again, the largest part that is held while it does.

    M tokens, C their channels, N latents, D their channels, F channels of queries and keys, V of values
"""

from dataclasses import replace

from model.config import ActivationCheckpointing, PerceiverConfig
from model.config_outputs import AnyOutput, GridOutput
from model.config_pixels import STEM_WIDTH, FlowInput, ImageInput, VideoInput
from model.cost import num_queries, stem_frames
from model.forms import read_form


def activation_bytes(
    config: PerceiverConfig,
    policy: ActivationCheckpointing | None = None,
    *,
    bytes_per_element: int = 4,
    device: str = "cpu",
) -> int:
    """Return the bytes of one sample's activations under a policy, by default the config's, on a kind of device."""
    config = replace(
        config,
        activation_checkpointing=policy or config.activation_checkpointing,
        cross_attend_form=read_form(config, device),
    )
    adapters, stem_gradients = _adapters(config)
    reading = _tokens(config) + _steps(config) + _decoder(config)
    # The convolution's gradients come last, when all else is gone but the tokens'.
    return bytes_per_element * (adapters + max(reading, stem_gradients + config.num_tokens * config.token_width))


def _adapters(config: PerceiverConfig) -> tuple[int, int]:
    """Elements that linear layers and convolutions before the tokens keep, and of the convolutions' own gradients."""
    kept = gradients = 0
    for modality in config.inputs.chosen().values():
        if isinstance(modality, ImageInput | VideoInput | FlowInput) and modality.project_to:
            kept += modality.num_tokens * modality.raw_width
        if isinstance(modality, ImageInput | FlowInput) and modality.conv_stem:
            frames, runs = stem_frames(modality)
            pixels = modality.height * modality.width
            half, quarter = STEM_WIDTH * pixels // 4, STEM_WIDTH * pixels // 16
            # The padded pixels, what the ReLU and the padding of the pool give, and where each maximum was.
            kept += runs * (frames * modality.num_channels * pixels + 2 * half + 2 * quarter)
            gradients += runs * 2 * half
    return kept, gradients


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
    raw = M * C if config.tokens_learn else 0
    return M * C + raw + (keys_values if form == "plain" else 0)


def _steps(config: PerceiverConfig) -> int:
    """Elements of the cross-attends and blocks when they are most: kept, computed again, or gradients of the tokens.

    The backward pass goes through the schedule from its end. What it has done with is gone, but the gradients of the
    tokens stay until the first cross-attend.
    """
    gradients = _token_gradients(config)
    kept, again = _kept_and_again(config)
    held = sum(kept)
    most = held + _in_flight(config) if config.activation_checkpointing in ("blocks", "layers", "offload") else held
    later = 0
    for (kind, _), its_kept, its_again in reversed(list(zip(config.schedule(), kept, again, strict=True))):
        own = gradients if kind == "cross_attend" else 0
        # What a layer computes again meets the gradients of four of its results.
        flying = 4 * config.num_latents * config.latent_width if its_again else 0
        most = max(most, held + its_again + flying + own + later)
        held, later = held - its_kept, max(later, own)
    return most


def _kept_and_again(config: PerceiverConfig) -> tuple[list[int], list[int]]:
    """Elements that each step of the schedule keeps, and that it computes again in the backward pass."""
    latents, layers = config.num_latents * config.latent_width, config.layers_per_block
    layer, cross = _layer(config), _cross_attend(config)
    block, products = layers * layer, layers * _products(config)
    whole = {"cross_attend": (cross, 0), "block": (block, 0)}
    absorbed = read_form(config) != "plain"
    recomputed = {
        "none": whole,
        "layers": {"cross_attend": (latents, cross), "block": (layers * latents, layer)},
        "blocks": {"cross_attend": (latents, cross), "block": (latents, block)},
        "offload": {"cross_attend": (0, cross), "block": (0, block)},
        "selective": {
            "cross_attend": (cross, 0) if absorbed else (latents + _products(config), cross),
            "block": (latents + products, max(block - products, 0)),
        },
    }[config.activation_checkpointing]
    every = 1 if config.activation_checkpointing == "layers" else config.checkpoint_every
    kept, again, num_blocks = [], [], 0
    for kind, _ in config.schedule():
        # Layers are computed again in every block.
        is_whole = kind == "block" and num_blocks % every
        its_kept, its_again = (whole if is_whole else recomputed)[kind]
        kept.append(its_kept)
        again.append(its_again)
        num_blocks += kind == "block"
    return kept, again


def _in_flight(config: PerceiverConfig) -> int:
    """Elements at the end of the forward pass that nothing keeps: the tokens as they came, a layer's intermediates."""
    raw = 0 if read_form(config) == "separable" or config.tokens_learn else config.num_tokens * config.token_width
    return raw + 6 * config.num_latents * config.latent_width


def _token_gradients(config: PerceiverConfig) -> int:
    """Elements of the gradients that a cross-attend gives to what it reads, and of their sum over cross-attends."""
    C = config.token_width
    if read_form(config) == "plain":
        return config.num_tokens * sum(config.cross_attend.widths(C))
    return config.num_tokens * C if config.tokens_learn else 0


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
