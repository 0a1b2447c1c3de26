"""Answers that are a few numbers of a sample as a whole: what classes, values and embeddings have in common."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost, linear
from model.config.grids import Problems, not_negative
from model.outputs.output import Network, Output

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class VectorOutput(Output):
    """One vector a sample: of the mean of the latents, or of one query that reads them."""

    pooling: Literal["mean", "query"] = "mean"
    """Whether the latents are averaged (the first paper) or one learned query attends to them (Perceiver IO)."""
    query_width: int = 0
    """Channels of the query; 0 means those of a latent vector."""
    # Perceiver IO, appendix F.4.
    hidden_layer: bool = False
    """Whether a layer of the query's width with a tanh comes before the last one, as for GLUE."""
    norm_mean: bool = False
    """Whether the mean of the latents goes through a LayerNorm, as in perceiver-pytorch."""

    @property
    @abstractmethod
    def num_answered(self) -> int:
        """Numbers of the vector."""

    def own_width(self, network: Network) -> int:
        """Return the channels of the query; 0 where the latents are averaged."""
        return 0 if self.pooling == "mean" else self.query_width or network.latent_width

    def num_queries(self, network: Network) -> int:  # noqa: ARG002
        """Return 1: the sample as a whole."""
        return 1

    def queries(self, network: Network) -> "nn.Module":
        """Return the learned query."""
        from model.outputs.modules.queries import LearnedQueries

        return LearnedQueries(1, self.own_width(network))

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":  # noqa: ARG002
        """Return a linear layer over the row or over the mean of the latents."""
        from model.outputs.modules.heads import MeanHead, RowHead

        if self.pooling == "mean":
            return MeanHead(width, self.num_answered, has_norm=self.norm_mean)
        return RowHead(width, self.num_answered, hidden_layer=self.hidden_layer)

    def queries_cost(self, network: Network) -> Cost:
        """Return the parameters of the query."""
        return Cost(self.own_width(network))

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:  # noqa: ARG002
        """Return the cost of its one or two layers and of the norm."""
        hidden = linear(width, width, 1) if self.hidden_layer else Cost(2 * width if self.norm_mean else 0)
        return hidden + linear(width, self.num_answered, 1)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        yield from not_negative(query_width=self.query_width)
        # A key without effect would be taken for one with.
        for name in ("query_width", "hidden_layer"):
            if self.pooling == "mean" and getattr(self, name):
                yield name, f"has no meaning with pooling=mean, got {getattr(self, name)}; set pooling=query"
        if self.norm_mean and self.pooling != "mean":
            yield "norm_mean", f"has no meaning with pooling={self.pooling}, got true; set pooling=mean"
