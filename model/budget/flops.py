"""Parameters and floating-point operations of a network, from its config alone.

Operations are counted as in the papers: a multiplication and an addition are two, norms, softmax, biases and
element-wise work are none, one sample, forward only, and what shared cross-attends have in common counts each time
(`shared_reads` is what this network saves by computing it once). Training costs three times as much.

    M tokens, C their channels, N latents (or queries), D their channels, F channels of queries and keys, V of values
"""

from dataclasses import dataclass
from math import prod

from model.config.attention import AttentionConfig
from model.config.inputs import AnyInput, TextInput
from model.config.outputs import AnyOutput, FlowOutput, GridOutput, LabelOutput, TextOutput
from model.config.perceiver import PerceiverConfig
from model.config.pixels import STEM_WIDTH, FlowInput, ImageInput, VideoInput


@dataclass(frozen=True)
class Cost:
    """What a part of a network costs."""

    parameters: int = 0
    """Weights, counted once however often they are used."""
    flops: int = 0
    """Operations of one sample's forward pass."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameters + other.parameters, self.flops + other.flops)


def network_cost(config: PerceiverConfig, num_points: dict[str, int] | None = None) -> dict[str, Cost]:
    """Return the cost of each part: "inputs", "cross_attends", "blocks" and "decoder".

    `num_points` is how many cells of a grid output are asked for, all of them by default.
    """
    return {
        "inputs": _inputs(config),
        "cross_attends": _cross_attends(config),
        "blocks": _blocks(config),
        "decoder": _decoder(config, num_points or {}),
    }


def total(parts: dict[str, Cost]) -> Cost:
    """Return the sum of the parts."""
    return sum(parts.values(), Cost())


def shared_reads(config: PerceiverConfig) -> int:
    """Return the operations that shared cross-attends save by computing the keys and values of the tokens once."""
    qk_width, value_width = config.cross_attend.widths(config.token_width)
    repeats = config.num_cross_attends - len(_modules(config, "cross_attend"))
    return repeats * 2 * config.num_tokens * config.token_width * (qk_width + value_width)


def _modules(config: PerceiverConfig, kind: str) -> set[int]:
    return {index for step, index in config.schedule() if step == kind}


def _linear(inputs: int, outputs: int, rows: int = 0) -> Cost:
    return Cost(inputs * outputs + outputs, 2 * rows * inputs * outputs)


def _attention(N: int, D: int, M: int, C: int, config: AttentionConfig, default_width: int) -> Cost:
    """An attention and its MLP, without norms; N = M and C = D within the latents."""
    F, V = config.widths(default_width)
    projections = _linear(D, F, N) + _linear(C, F, M) + _linear(C, V, M) + _linear(V, D, N)
    mlp = _linear(D, config.mlp_ratio * D, N) + _linear(config.mlp_ratio * D, D, N)
    return projections + mlp + Cost(flops=2 * N * M * (F + V))


def _cross_attend(N: int, D: int, M: int, C: int, config: AttentionConfig) -> Cost:
    return _attention(N, D, M, C, config, C) + Cost(parameters=4 * D + 2 * C)


def _cross_attends(config: PerceiverConfig) -> Cost:
    sizes = config.num_latents, config.latent_width, config.num_tokens, config.token_width
    one = _cross_attend(*sizes, config.cross_attend)
    modules = len(_modules(config, "cross_attend"))
    return Cost(modules * one.parameters, config.num_cross_attends * one.flops)


def _blocks(config: PerceiverConfig) -> Cost:
    """The self-attention layers, and the latents themselves."""
    N, D = config.num_latents, config.latent_width
    layer = _attention(N, D, N, D, config.self_attend, D) + Cost(parameters=4 * D)
    modules, layers = len(_modules(config, "block")), config.layers_per_block
    return Cost(modules * layers * layer.parameters + N * D, config.num_blocks * layers * layer.flops)


def _inputs(config: PerceiverConfig) -> Cost:
    chosen = config.inputs.chosen()
    cost = sum((_adapter(modality) for modality in chosen.values()), Cost())
    paddings = sum(config.token_width - modality.token_width for modality in chosen.values())
    masks = len(chosen) * config.token_width if config.mask_tokens else 0
    return cost + Cost(parameters=paddings + masks)


def _adapter(modality: AnyInput) -> Cost:
    if isinstance(modality, TextInput):
        return Cost((modality.vocabulary + modality.max_tokens) * modality.embedding_width)
    cost = _pixels(modality) if isinstance(modality, ImageInput | VideoInput | FlowInput) else Cost()
    positions = getattr(modality, "positions", None)
    if positions is None or positions.kind != "learned":
        return cost
    cost += Cost(modality.num_tokens * positions.learned_width)
    # The layer over the positions runs once a batch, not once a sample: its operations are not counted.
    return cost + (_linear(positions.learned_width, positions.project_to) if positions.project_to else Cost())


def _pixels(modality: ImageInput | VideoInput | FlowInput) -> Cost:
    project = _linear(modality.raw_width, modality.project_to, modality.num_tokens) if modality.project_to else Cost()
    if isinstance(modality, VideoInput) or not modality.conv_stem:
        return project
    frames, runs = stem_frames(modality)
    stem = _conv_stem(modality.height, modality.width, modality.num_channels * frames)
    return project + Cost(stem.parameters, stem.flops * runs)


def stem_frames(modality: ImageInput | FlowInput) -> tuple[int, int]:
    """Return how many frames the convolution reads at once, and how often it runs for a sample."""
    if isinstance(modality, ImageInput):
        return 1, 1
    return modality.frames_per_token, 2 // modality.frames_per_token


def _conv_stem(height: int, width: int, channels: int) -> Cost:
    """A 7x7 convolution of stride 2, and a batch norm."""
    weights = 49 * channels * STEM_WIDTH
    return Cost(weights + 2 * STEM_WIDTH, 2 * -(-height // 2) * -(-width // 2) * weights)


def _decoder(config: PerceiverConfig, num_points: dict[str, int]) -> Cost:
    """The queries, the shared cross-attend and the heads; keys and values of the latents count once."""
    chosen = config.outputs.chosen()
    N, D, E = config.num_latents, config.latent_width, config.decoder_width
    asked = {name: output for name, output in chosen.items() if config.query_width(output)}
    means = (output for output in chosen.values() if isinstance(output, LabelOutput) and output.pooling == "mean")
    cost = sum((_linear(D, output.num_classes, 1) for output in means), Cost())
    if not asked:
        return cost
    counts = {name: num_points.get(name, num_queries(output, config)) for name, output in asked.items()}
    cost += _cross_attend(sum(counts.values()), E, N, D, config.decoder.cross_attend)
    width = config.decoder.output_width or E
    if config.decoder.output_width:
        cost += _linear(E, width, sum(counts.values()))
    paddings = sum(E - config.query_width(output) for output in asked.values())
    heads = (_head(output, width, counts[name], config) for name, output in asked.items())
    tables = (_queries(output, config) for name, output in asked.items())
    return sum((*heads, *tables), cost + Cost(parameters=paddings))


def num_queries(output: AnyOutput, config: PerceiverConfig) -> int:
    """Return how many rows of the latents an output asks for, all cells of a grid."""
    match output:
        case TextOutput():
            return config.inputs.text.max_tokens if config.inputs.text else 0
        case FlowOutput():
            return prod(config.inputs.flow.cells) if config.inputs.flow else 0
        case GridOutput():
            return output.num_queries
    return 1


def _queries(output: AnyOutput, config: PerceiverConfig) -> Cost:
    match output:
        case LabelOutput() | TextOutput():
            return Cost(num_queries(output, config) * config.query_width(output))
        case GridOutput() if output.positions.kind == "learned":
            cost = Cost(output.num_queries * output.positions.learned_width)
            project_to = output.positions.project_to
            return cost + (_linear(output.positions.learned_width, project_to) if project_to else Cost())
    return Cost()


def _head(output: AnyOutput, width: int, asked: int, config: PerceiverConfig) -> Cost:
    match output:
        case LabelOutput():
            hidden = _linear(width, width, 1) if output.hidden_layer else Cost()
            return hidden + _linear(width, output.num_classes, 1)
        case TextOutput():
            vocabulary = config.inputs.text.vocabulary if config.inputs.text else 0
            return Cost(vocabulary, 2 * asked * width * vocabulary)
        case FlowOutput():
            side = config.inputs.flow.upsampling if config.inputs.flow else 1
            if side == 1:
                return _linear(width, 2, asked)
            # The shares of 3x3 cells in every pixel of a cell, and the products with their motion.
            shares = _linear(9 * width, 9 * side**2, asked)
            return _linear(width, 2, asked) + shares + Cost(flops=2 * asked * side**2 * 9 * 2)
        case GridOutput():
            return _linear(width, output.num_channels, asked)
