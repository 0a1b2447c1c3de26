"""The decoder that the queries of all outputs share."""

from dataclasses import dataclass, field

from model.config.attention import AttentionConfig
from model.config.grids import Problems, not_negative


@dataclass(frozen=True)
class DecoderConfig:
    """The one cross-attend in which all queries read the latents."""

    cross_attend: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention from the queries to the latents; width 0 means the latents'."""
    query_residual: bool = False
    """Whether the attention's result is added to the query (ImageNet) or replaces it (language, flow, autoencoding)."""
    has_mlp: bool = True
    """Whether an MLP follows the attention."""
    # 2 here and 4 for the inputs, as in the released code of the second paper.
    min_padding: int = 2
    """Learned channels that the widest query gets when several outputs are joined."""
    output_width: int = 0
    """Channels of a linear layer between the cross-attend and the layer of each output; 0 means no such layer."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem but the attention's, which only the network can know."""
        yield from not_negative(min_padding=self.min_padding, output_width=self.output_width)
