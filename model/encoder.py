"""Latents read the tokens and think, in turns; turns that share weights share modules."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import CrossAttend, SelfAttend, normalised
from model.config import PerceiverConfig
from model.inputs import Tokens
from model.parameters import Table


def recomputed(layer: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Return the layer's output, keeping only its inputs for the backward pass.

    Non-reentrant, which alone is exact at every ZeRO stage when a module runs several times in one pass.
    """
    out: Tensor = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def kept(layer: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Return the layer's output, keeping what autograd keeps."""
    return layer(*inputs)


class Block(nn.ModuleList):
    """Self-attention layers, each run by `run_layer`."""

    def __init__(self, config: PerceiverConfig) -> None:
        width, attention = config.latent_width, config.self_attend
        super().__init__(SelfAttend(width, attention, config.gelu) for _ in range(config.layers_per_block))
        self.run_layer = recomputed if config.activation_checkpointing == "layers" else kept

    def forward(self, latents_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Return the latents after all layers."""
        for layer in self:
            latents_BND = self.run_layer(layer, latents_BND)
        return latents_BND


class Encoder(nn.Module):
    """The learned latents, the cross-attends and the blocks, in the order of the config's schedule."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.schedule = config.schedule()
        num_cross_attends = 1 + max(index for kind, index in self.schedule if kind == "cross_attend")
        num_blocks = 1 + max((index for kind, index in self.schedule if kind == "block"), default=-1)
        self.latents = Table(config.num_latents, config.latent_width)
        self.cross_attends = nn.ModuleList(
            CrossAttend(config.latent_width, config.token_width, config.cross_attend, config.gelu)
            for _ in range(num_cross_attends)
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(num_blocks))
        self.run_cross_attend = kept if config.activation_checkpointing == "none" else recomputed
        self.run_block = recomputed if config.activation_checkpointing == "blocks" else kept

    def forward(self, tokens: Tokens) -> Float[Tensor, "B N D"]:
        """Return the latents after reading and thinking."""
        normalised_BMC = normalised(tokens.values)
        latents_BND = self.latents.weight[None]
        read: dict[int, tuple[Tensor, Tensor]] = {}
        for kind, index in self.schedule:
            if kind == "block":
                latents_BND = self.run_block(self.blocks[index], latents_BND)
                continue
            layer = self.cross_attends[index]
            assert isinstance(layer, CrossAttend)
            if index not in read:
                read[index] = layer.keys_values(normalised_BMC)
            latents_BND = self.run_cross_attend(layer, latents_BND, *read[index], tokens.valid)
        return latents_BND
