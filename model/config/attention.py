"""One kind of attention layer."""

from dataclasses import dataclass
from typing import Literal

from model.config.grids import Problems

ResidualDtype = Literal["fp32", "bf16"]
NormKind = Literal["layer", "rms"]
MlpKind = Literal["gelu", "geglu", "swiglu"]


@dataclass(frozen=True)
class AttentionConfig:
    """One kind of attention layer; the layers of the kind are all alike."""

    num_heads: int = 1
    """Heads; they divide the widths below."""
    qk_width: int = 0
    """Channels of queries and keys; 0 means those of the attended tokens."""
    value_width: int = 0
    """Channels of values; 0 means qk_width."""
    mlp_ratio: int = 1
    """Hidden channels of the layer's MLP, as a multiple of its width."""

    qkv_bias: bool = True
    """Whether the projections to queries, keys and values have biases."""
    qk_norm: bool = False
    """Whether the queries and keys of each head go through an RMSNorm of their own, which bounds their products."""
    rotary: bool = False
    """Rotary positions: queries and keys are turned by their places, of latents their number, of tokens their place on
    each axis of their input."""

    @property
    def needs_keys(self) -> bool:
        """Whether what is done to keys keeps their projection from moving to the queries."""
        return self.qk_norm or self.rotary

    def num_pairs(self, token_width: int) -> int:
        """Return the pairs of a head's channels that rotary positions turn."""
        # Of an odd width the last channel is not turned.
        return self.widths(token_width)[0] // self.num_heads // 2

    def widths(self, token_width: int) -> tuple[int, int]:
        """Return the channels of queries and keys, and of values, over tokens of this width."""
        qk_width = self.qk_width or token_width
        # Values as wide as keys, and keys as wide as tokens, unless given: the released code's order of defaults.
        return qk_width, self.value_width or qk_width

    def problems(self, token_width: int, of: str) -> Problems:
        """Yield (key, sentence) of what cannot attend to tokens of this width, the channels `of` something."""
        if self.num_heads < 1:
            yield "num_heads", f"must be at least 1, got {self.num_heads}"
            return
        if self.mlp_ratio < 1:
            yield "mlp_ratio", f"must be at least 1, got {self.mlp_ratio}"
        for name, width in (("qk_width", self.qk_width), ("value_width", self.value_width)):
            if width < 0 or width % self.num_heads:
                yield (
                    name,
                    f"must be a positive multiple of num_heads ({self.num_heads}), got {width}; change one of them",
                )
        if not self.qk_width and token_width % self.num_heads:
            yield (
                "num_heads",
                f"must divide {token_width}, the channels {of}; change it, or set qk_width to a multiple of it",
            )
