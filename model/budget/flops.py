"""Parameters and floating-point operations of a network, from its config alone.

Operations are counted as in the papers: a multiplication and an addition are two, norms, softmax, biases and
element-wise work are none, one sample, forward only, and what shared cross-attends have in common counts each time
(`shared_reads` is what this network saves by computing it once). A sample takes several passes where outputs read
inputs alone. Training costs three times as much, and the passes before it that `gathering` counts.

    M tokens, C their channels, N latents (or queries), D their channels, F channels of queries and keys, V of values
"""

from dataclasses import replace

from model.config.attention import AttentionConfig
from model.config.cost import Cost, linear
from model.config.perceiver import PerceiverConfig
from model.modalities.input import Input
from model.outputs.output import Output


def network_cost(config: PerceiverConfig, num_points: dict[str, int] | None = None) -> dict[str, Cost]:
    """Return the cost of each part: "inputs", "cross_attends", "blocks" and "decoder".

    `num_points` is how many cells of a grid output are asked for, all of them by default. The network of a plug-in is
    one part, "network".
    """
    if config.network is not None:
        return {"network": _custom(config)}
    passes = config.passes()
    parts = {"inputs": _inputs(config), "cross_attends": _cross_attends(config), "blocks": _blocks(config)}
    # Weights count once, operations once a pass.
    parts = {name: replace(cost, flops=len(passes) * cost.flops) for name, cost in parts.items()}
    flops = sum(_decoder(config, outputs, num_points or {}).flops for outputs in passes)
    return parts | {"decoder": replace(_decoder(config, config.answers(), num_points or {}), flops=flops)}


def training_cost(config: PerceiverConfig) -> dict[str, Cost]:
    """Return the cost of each part where an output asks for the random queries of a training batch alone."""
    return network_cost(config, {name: output.num_trained(config) for name, output in config.answers().items()})


def total(parts: dict[str, Cost]) -> Cost:
    """Return the sum of the parts."""
    return sum(parts.values(), Cost())


def mean_trained_flops(config: PerceiverConfig) -> float:
    """Return the operations of one sample's forward pass in training, the mean over the numbers of latents of steps."""
    shares = config.latent_shares.items()
    return sum(share * total(training_cost(config.with_latents(size))).flops for size, share in shares)


def training_flops(config: PerceiverConfig) -> float:
    """Return the operations of a training step for one sample, the mean over the numbers of latents of steps."""
    gathered = (share * gathering(config.with_latents(size)) for size, share in config.latent_shares.items())
    return 3 * mean_trained_flops(config) + sum(gathered)


def gathering(config: PerceiverConfig) -> int:
    """Return the operations of the passes without gradients that collect the answers of a global batch.

    Outputs that compare samples need those of all ranks before the passes that learn.
    """
    alone = [outputs for outputs in config.passes() if any(output.views() for output in outputs.values())]
    if config.network is not None:
        return len(alone) * _custom(config).flops // len(config.passes()) if alone else 0
    encoder = _inputs(config).flops + _cross_attends(config).flops + _blocks(config).flops
    return sum(encoder + _decoder(config, outputs, {}).flops for outputs in alone)


def shared_reads(config: PerceiverConfig) -> int:
    """Return the operations that shared cross-attends save by computing the keys and values of the tokens once."""
    qk_width, value_width = config.cross_attend.widths(config.token_width)
    repeats = config.num_cross_attends - len(_modules(config, "cross_attend"))
    return len(config.passes()) * repeats * 2 * config.num_tokens * config.token_width * (qk_width + value_width)


def _custom(config: PerceiverConfig) -> Cost:
    from model.budget.custom import network_measured

    found = network_measured(config)
    return Cost(found.parameters, len(config.passes()) * found.flops)


def _modules(config: PerceiverConfig, kind: str) -> set[int]:
    return {index for step, index in config.schedule() if step == kind}


def _attention(N: int, D: int, M: int, C: int, config: AttentionConfig, default_width: int) -> Cost:
    """An attention without the norms around it; N = M and C = D within the latents."""
    F, V = config.widths(default_width)
    projections = linear(D, F, N) + linear(C, F, M) + linear(C, V, M) + linear(V, D, N)
    projections += Cost(parameters=0 if config.qkv_bias else -(2 * F + V))
    head_norms = 2 * F // config.num_heads if config.qk_norm else 0
    return projections + Cost(head_norms, 2 * N * M * (F + V))


def _mlp(N: int, D: int, config: AttentionConfig, network: PerceiverConfig) -> Cost:
    """An MLP and the norm before it."""
    mlp = linear(config.mlp_ratio * D, D, N)
    for _ in range(1 + (network.mlp != "gelu")):
        mlp += linear(D, config.mlp_ratio * D, N)
    return mlp + _norm(D, network)


def _norm(width: int, network: PerceiverConfig) -> Cost:
    """A norm: a scale, and the offset that RMSNorm has not."""
    return Cost(parameters=width if network.norm == "rms" else 2 * width)


def _cross_attend(N: int, D: int, M: int, C: int, config: AttentionConfig, network: PerceiverConfig) -> Cost:
    # Norms of the queries and the tokens.
    return _attention(N, D, M, C, config, C) + _norm(D, network) + _norm(C, network)


def _cross_attends(config: PerceiverConfig) -> Cost:
    sizes = config.num_latents, config.latent_width, config.num_tokens, config.token_width
    one = _cross_attend(*sizes, config.cross_attend, config)
    one += _mlp(config.num_latents, config.latent_width, config.cross_attend, config)
    modules = len(_modules(config, "cross_attend"))
    return Cost(modules * one.parameters, config.num_cross_attends * one.flops)


def _blocks(config: PerceiverConfig) -> Cost:
    """The self-attention layers, and the latents themselves."""
    N, D = config.num_latents, config.latent_width
    # Queries, keys and values share a norm.
    layer = _attention(N, D, N, D, config.self_attend, D) + _norm(D, config) + _mlp(N, D, config.self_attend, config)
    modules, layers = len(_modules(config, "block")), config.layers_per_block
    return _latents(config) + Cost(modules * layers * layer.parameters, config.num_blocks * layers * layer.flops)


def _latents(config: PerceiverConfig) -> Cost:
    """The latents: a table, or of a stream its first token and the layer that widens tokens to latents."""
    N, D, C = config.num_latents, config.latent_width, config.token_width
    if not config.stream:
        return Cost(N * D)
    return Cost(C) + (linear(C, D, N) if C != D else Cost())


def _inputs(config: PerceiverConfig) -> Cost:
    inputs = config.ordered_inputs.values()
    cost = sum(map(_input, inputs), Cost())
    # One vector a modality, broadcast over its tokens, as wide as what it lacks.
    paddings = sum(config.token_width - each.token_width for each in inputs)
    masks = len(inputs) * config.token_width if config.mask_tokens else 0
    return cost + Cost(parameters=paddings + masks)


def _input(each: Input) -> Cost:
    """The adapter of an input; of a plug-in's own adapter without a cost what its module is measured to have."""
    if not _is_unsaid(each, "adapter", "cost"):
        return each.cost()
    from model.budget.custom import adapter_cost

    # Learned positions are none of the adapter.
    return adapter_cost(each) + Input.cost(each)


def _head(output: Output, width: int, num_asked: int, config: PerceiverConfig) -> Cost:
    """The head of an output; of a plug-in's own head without a cost what its module is measured to have."""
    if not _is_unsaid(output, "head", "head_cost"):
        return output.head_cost(width, num_asked, config)
    from model.budget.custom import head_cost

    return head_cost(output, width, num_asked, config)


def _is_unsaid(part: Input | Output, module: str, cost: str) -> bool:
    """Return whether a plug-in's class has a module of its own, and its cost is that of a class it derives from."""
    kinds = type(part).__mro__
    own, said = (next(place for place, kind in enumerate(kinds) if name in vars(kind)) for name in (module, cost))
    # A class of this package that inherits a cost has it on purpose; that of a plug-in may have forgotten it.
    return own < said and not kinds[own].__module__.startswith("model.")


def _decoder(config: PerceiverConfig, answers: dict[str, Output], num_points: dict[str, int]) -> Cost:
    """The queries, the shared cross-attend and the heads of a pass; keys and values of the latents count once."""
    N, D, E = config.num_latents, config.latent_width, config.decoder_width
    asked = {name: output for name, output in answers.items() if output.own_width(config)}
    pooled = (output for name, output in answers.items() if name not in asked)
    cost = sum((_head(output, D, 1, config) for output in pooled), Cost())
    if not asked:
        return cost
    counts = {name: num_points.get(name, output.num_queries(config)) for name, output in asked.items()}
    cost += _cross_attend(sum(counts.values()), E, N, D, config.decoder.cross_attend, config)
    if config.decoder.has_mlp:
        cost += _mlp(sum(counts.values()), E, config.decoder.cross_attend, config)
    width = config.decoder.output_width or E
    if config.decoder.output_width:
        cost += linear(E, width, sum(counts.values()))
    paddings = sum(E - output.own_width(config) for output in asked.values())
    heads = (_head(output, width, counts[name], config) for name, output in asked.items())
    tables = (output.queries_cost(config) for output in asked.values())
    return sum((*heads, *tables), cost + Cost(parameters=paddings))
