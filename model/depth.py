"""The depth of each parameter of a network, from the inputs to the answers, for a learning rate that falls with it."""

from torch import nn

from model.attention.layers import CrossAttend
from model.encoder import Block
from model.perceiver import Perceiver


def depths(network: Perceiver) -> dict[str, int]:
    """Return the depth of each parameter by its name.

    0 is what makes the tokens (adapters, positions, paddings, mask tokens) and the latents. Then each cross-attend and
    each self-attention layer of a block is one deeper than the one before it, in the order in which a forward pass
    first comes to them: weights that are used several times have the depth of their first use. The decoder, with its
    queries and heads, is the deepest.
    """
    encoder = network.encoder
    steps = [
        encoder.cross_attends[at] if kind == "cross_attend" else encoder.blocks[at] for kind, at in encoder.schedule
    ]
    layers = [layer for step in steps for layer in _layers(step)]
    # A dictionary keeps the order of what came first.
    depth_of = {layer: depth for depth, layer in enumerate(dict.fromkeys(layers), start=1)}
    found = {name: 0 for name, _ in network.named_parameters()}
    for module_name, module in network.named_modules():
        depth = len(depth_of) + 1 if module is network.decoder else depth_of.get(module)
        if depth is not None:
            names = (f"{module_name}.{name}" for name, _ in module.named_parameters())
            # A text's embedding that its answer uses again is an input's.
            found.update((name, depth) for name in names if name in found)
    return found


def _layers(step: nn.Module) -> list[nn.Module]:
    if isinstance(step, Block):
        return list(step)
    assert isinstance(step, CrossAttend)
    return [step]
