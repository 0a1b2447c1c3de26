"""The network: how it reads, thinks and answers. Standard library only, so that configs load without torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from model.config_grids import Problems
from model.config_inputs import InputsConfig
from model.config_outputs import OutputsConfig

Step = tuple[Literal["cross_attend", "block"], int]


@dataclass(frozen=True)
class AttentionConfig:
    """One kind of attention layer; the layers of the kind are all alike."""

    num_heads: int = 1
    """Heads; they divide the widths below."""
    qk_width: int = 0
    """Channels of queries and keys; 0 means those of the attended tokens."""
    value_width: int = 0
    """Channels of values; 0 means qk_width."""
    widening: int = 1
    """Hidden channels of the layer's MLP, as a multiple of its width."""

    def widths(self, token_width: int) -> tuple[int, int]:
        """Return the channels of queries and keys, and of values, over tokens of this width."""
        qk_width = self.qk_width or token_width
        return qk_width, self.value_width or qk_width

    def problems(self, token_width: int) -> Problems:
        """Yield (key, sentence) of what attention over tokens of this width cannot have."""
        if self.num_heads < 1:
            yield "num_heads", f"must be at least 1, got {self.num_heads}"
            return
        if self.widening < 1:
            yield "widening", f"must be at least 1, got {self.widening}"
        for name, width in zip(("qk_width", "value_width"), self.widths(token_width), strict=True):
            if width < 1 or width % self.num_heads:
                yield (
                    name,
                    f"must be a positive multiple of num_heads ({self.num_heads}), got {width}; change one of them",
                )


@dataclass(frozen=True)
class PerceiverConfig:
    """A Perceiver (any number of cross-attends, mean pooling) or a Perceiver IO (one, and query decoders)."""

    inputs: InputsConfig = field(default_factory=InputsConfig)
    """What is read."""
    outputs: OutputsConfig = field(default_factory=OutputsConfig)
    """What is answered."""
    min_padding: int = 4
    """Learned channels that the widest modality gets when several are joined; narrower ones are padded to its width."""
    mask_tokens: bool = False
    """Whether each modality has a learned token that can take the place of any of its tokens."""
    num_latents: int = 512
    """Latent vectors."""
    latent_width: int = 1_024
    """Channels of a latent vector."""
    num_cross_attends: int = 8
    """How often the latents read the inputs."""
    num_blocks: int = 8
    """Blocks of self-attention layers over the latents; 0 leaves cross-attends only."""
    layers_per_block: int = 6
    """Self-attention layers of a block."""
    arrangement: Literal["interleaved", "at_start"] = "interleaved"
    """Whether cross-attends are spread evenly between the blocks or all come before them."""
    share_cross_attends: bool = True
    """Whether the cross-attends from the second on have the same weights; the first always has its own."""
    share_blocks: bool = True
    """Whether all blocks have the same weights, layer by layer."""
    cross_attend: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention from the latents to the inputs."""
    self_attend: AttentionConfig = field(default_factory=lambda: AttentionConfig(num_heads=8))
    """Attention between the latents."""
    gelu: Literal["tanh", "erf"] = "tanh"
    """The MLPs' activation: DeepMind's tanh approximation, or the exact one of Hugging Face."""
    activation_checkpointing: Literal["none", "blocks", "layers"] = "none"
    """What the backward pass recomputes instead of keeping: nothing, every block and cross-attend, or every layer."""

    @property
    def token_width(self) -> int:
        """Channels of the joined tokens: a single modality's own, or the widest plus the padding."""
        widths = [modality.token_width for modality in self.inputs.chosen().values()]
        return widths[0] if len(widths) == 1 else max(widths) + self.min_padding

    @property
    def num_tokens(self) -> int:
        """Tokens of one sample, all modalities joined."""
        return sum(modality.num_tokens for modality in self.inputs.chosen().values())

    def schedule(self) -> tuple[Step, ...]:
        """Return the encoder's steps in order; the number is that of the module, which shared steps have in common."""
        at_block = [
            index * self.num_blocks // self.num_cross_attends if self.arrangement == "interleaved" else 0
            for index in range(self.num_cross_attends)
        ]
        steps: list[Step] = []
        for block in range(max(self.num_blocks, 1)):
            for index in (index for index, place in enumerate(at_block) if place == block):
                steps.append(("cross_attend", min(index, 1) if self.share_cross_attends else index))
            if block < self.num_blocks:
                steps.append(("block", 0 if self.share_blocks else block))
        return tuple(steps)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem, keys relative to this dataclass."""
        chosen = self.inputs.chosen()
        if not chosen:
            yield "inputs", "no modality is set; set at least one, such as inputs.image.height=28"
            return
        yield from ((f"inputs.{key}", sentence) for key, sentence in self.inputs.problems())
        for name in ("num_latents", "latent_width", "num_cross_attends", "layers_per_block"):
            if getattr(self, name) < 1:
                yield name, f"must be at least 1, got {getattr(self, name)}"
        for name in ("num_blocks", "min_padding"):
            if getattr(self, name) < 0:
                yield name, f"must be 0 or more, got {getattr(self, name)}"
        parts = (
            ("cross_attend", self.cross_attend, self.token_width),
            ("self_attend", self.self_attend, self.latent_width),
        )
        for part, attention, width in parts:
            yield from ((f"{part}.{key}", sentence) for key, sentence in attention.problems(width))
        yield from ((f"outputs.{key}", sentence) for key, sentence in self.outputs.problems())
