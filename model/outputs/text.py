"""The bytes or tokens of a text that is read: masked language modelling."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost, linear
from model.config.grids import Problems
from model.outputs.output import Network, Output

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TextOutput(Output):
    """The byte or token at every place of a text.

    `target` is the input whose hidden words are filled in; empty for the one of this answer's name.
    """

    kind: Literal["text"] = "text"
    """Chooses this kind of answer."""
    queries_from: Literal["table", "tokens"] = "table"
    """The queries: a learned row for each place, or the tokens of the text, as in perceiver-pytorch."""
    # As DeepMind's released language model.
    is_tied: bool = True
    """Whether the weights of the last layer are those of the input's embedding."""

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
        """Return a learned row a place, or the tokens."""
        from model.outputs.modules.queries import LearnedQueries, TextQueries

        if self.queries_from == "tokens":
            return TextQueries(self.target, self.own_width(network))
        return LearnedQueries(self.num_queries(network), self.own_width(network), follows=self.target)

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":
        """Return the product with the embedding and a bias, or a linear layer."""
        from model.outputs.modules.heads import TextHead
        from model.parameters import Projection

        if not self.is_tied:
            return Projection(width, _of(self.target, network, "vocabulary"))
        return TextHead(_of(self.target, network, "vocabulary"), lambda: embedding(self.target))

    def queries_cost(self, network: Network) -> Cost:
        """Return the parameters of the rows; the tokens are those of the input."""
        if self.queries_from == "tokens":
            return Cost()
        return Cost(self.num_queries(network) * self.own_width(network))

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:
        """Return the cost of the product with the embedding, whose parameters are the input's, or of the layer."""
        vocabulary = _of(self.target, network, "vocabulary")
        if not self.is_tied:
            return linear(width, vocabulary, num_asked)
        return Cost(vocabulary, 2 * num_asked * width * vocabulary)

    def asks_along(self) -> str:
        """Return the text: a place without a byte asks nothing."""
        return self.target

    def network_problems(self, network: Network) -> Problems:
        """Yield (key, sentence) of what this network cannot fill in."""
        width = _of(self.target, network, "embedding_width")
        if not width:
            yield "", f"needs the text inputs.{self.target}, whose embedding it shares"
        # Logits are products of the decoded rows with the embedding, so both must have one width.
        elif self.is_tied and network.decoder_width != width:
            yield (
                "",
                f"shares the embedding of inputs.{self.target}, of {width} channels, and the widest queries have "
                f"{network.decoder_width} with their padding; set decoder.min_padding=0, and the embedding at least as "
                "wide as the queries of other outputs",
            )
        # Rows of another width than the embedding's cannot be multiplied with it.
        if self.is_tied and network.decoder.output_width:
            yield "", f"needs decoder.output_width=0, got {network.decoder.output_width}"


def _of(name: str, network: Network, field: str) -> int:
    """Return a number of the text that is read; 0 where it is no text."""
    return int(getattr(network.input_named(name), field, 0))
