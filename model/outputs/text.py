"""The bytes or tokens of a text that is read: masked language modelling."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost
from model.config.grids import Problems
from model.outputs.output import Network, Output

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TextOutput(Output):
    """The byte or token at every place of a text; weights are tied to the input's embedding.

    `target` is the input whose hidden words are filled in; empty for the one of this answer's name.
    """

    kind: Literal["text"] = "text"
    """Chooses this kind of answer."""

    def named(self, name: str, network: Network) -> "TextOutput":  # noqa: ARG002
        """Return this answer with the input that it fills in."""
        return self if self.target else replace(self, target=name)

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the words that were hidden."""
        return (("hidden words", self.target),)

    def own_width(self, network: Network) -> int:
        """Return the channels of the embedding."""
        return _of(self.target, network, "embedding_width")

    def num_queries(self, network: Network) -> int:
        """Return the places of the longest text."""
        return _of(self.target, network, "max_tokens")

    def queries(self, network: Network) -> "nn.Module":
        """Return a learned row a place."""
        from model.outputs.modules.queries import LearnedQueries

        return LearnedQueries(self.num_queries(network), self.own_width(network), follows=self.target)

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":  # noqa: ARG002
        """Return the product with the embedding, and a bias."""
        from model.outputs.modules.heads import TextHead

        return TextHead(_of(self.target, network, "vocabulary"), lambda: embedding(self.target))

    def queries_cost(self, network: Network) -> Cost:
        """Return the parameters of the rows."""
        return Cost(self.num_queries(network) * self.own_width(network))

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:
        """Return the cost of the product with the embedding, whose parameters are the input's."""
        vocabulary = _of(self.target, network, "vocabulary")
        return Cost(vocabulary, 2 * num_asked * width * vocabulary)

    def asks_along(self) -> str:
        """Return the text: a place without a byte asks nothing."""
        return self.target

    def network_problems(self, network: Network) -> Problems:
        """Yield (key, sentence) of what this network cannot fill in."""
        width = _of(self.target, network, "embedding_width")
        # Logits are products of the decoded rows with the embedding, so both must have one width.
        if not width:
            yield "", f"needs the text inputs.{self.target}, whose embedding it shares"
        elif network.decoder_width != width:
            yield (
                "",
                f"shares the embedding of inputs.{self.target}, of {width} channels, and the widest queries have "
                f"{network.decoder_width} with their padding; set decoder.min_padding=0, and the embedding at least as "
                "wide as the queries of other outputs",
            )
        if network.decoder.output_width:
            yield "", f"needs decoder.output_width=0, got {network.decoder.output_width}"


def _of(name: str, network: Network, field: str) -> int:
    """Return a number of the text that is read; 0 where it is no text."""
    return int(getattr(network.input_named(name), field, 0))
