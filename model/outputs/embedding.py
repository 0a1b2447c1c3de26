"""A vector of a sample that lies near those of what belongs together: contrastive learning of two inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost
from model.config.grids import Problems, positive
from model.outputs.output import Network
from model.outputs.vector import VectorOutput

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class EmbeddingOutput(VectorOutput):
    """A direction: the network reads one of two inputs alone, and the answers to both are to agree.

    Its length is the root of the inverse temperature, so that products of two answers are logits.
    """

    kind: Literal["embedding"] = "embedding"
    """Chooses this kind of answer."""
    pair: tuple[str, ...] = ()
    """The two inputs that belong together in each sample."""
    width: int = 256
    """Number of channels of the vector."""
    # CLIP's first temperature and its bound (arXiv 2103.00020, section 2.5).
    temperature: float = 0.07
    """The initial temperature, which divides the cosines. It is learned, down to 0.01."""

    @property
    def num_answered(self) -> int:
        """The channels."""
        return self.width

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":  # noqa: ARG002
        """Return a linear layer and the learned temperature."""
        from model.outputs.modules.heads import EmbeddingHead

        pools, hidden = self.pooling == "mean", self.hidden_layer
        return EmbeddingHead(width, self.width, pools=pools, hidden_layer=hidden, temperature=self.temperature)

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:
        """Return the cost of the layers, and the temperature."""
        return super().head_cost(width, num_asked, network) + Cost(parameters=1)

    def views(self) -> tuple[str, ...]:
        """Return the two inputs."""
        return self.pair

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the two inputs."""
        return tuple(("input", name) for name in self.pair)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        yield from positive(width=self.width)
        # Training keeps it above this bound, and could not begin below.
        if not 0.01 <= self.temperature < inf:
            yield "temperature", f"must be 0.01 or more, got {self.temperature}"
        if len(self.pair) != 2 or len(set(self.pair)) != 2:
            yield "pair", f"must name two inputs, got {list(self.pair)}"
        if self.norm_mean:
            yield "norm_mean", "has no meaning for a direction, got true; leave it out"
        if self.target:
            yield "target", f"must be empty, since the two inputs of pair are compared, got {self.target!r}"

    def network_problems(self, network: Network) -> Problems:
        """Yield (key, sentence) of inputs that the network does not read."""
        for name in self.pair:
            if network.input_named(name) is None:
                yield "pair", f"names {name!r}, which is no input of the network; set inputs.{name}"
