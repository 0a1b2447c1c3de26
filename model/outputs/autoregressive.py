"""What a stream has next, at each of its last places: autoregression (Perceiver AR)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost, linear
from model.config.grids import Problems
from model.modalities.array import ArrayInput
from model.modalities.text import TextInput
from model.outputs.output import Network, Output

if TYPE_CHECKING:
    from torch import Tensor, nn

_NUM_BYTES = TextInput.vocabulary


@dataclass(frozen=True)
class StreamShape:
    """The sizes of a stream, of the network that answers it."""

    num_latents: int = 0
    """Places that are answered at once."""
    num_places: int = 0
    """Places of the longest stream."""
    places_of_entry: int = 0
    """Places of an entry of its first axis, which its length counts."""
    num_ids: int = 0
    """Ids of a text; 0 of an array."""
    num_channels: int = 0
    """Values of a cell of an array; 0 of a text."""


@dataclass(frozen=True, kw_only=True)
class AutoregressiveOutput(Output):
    """What comes next in a text, as bytes or tokens, or in an array, cell by cell.

    `target` is the input that is continued; empty for the one of this answer's name. With this answer the latents are
    the last places of that input.
    """

    kind: Literal["autoregressive"] = "autoregressive"
    """Chooses this kind of answer."""
    prefix_dropout: float = 0.0
    """Part of the places before the latents that training hides from them, others of every sample in every step."""
    num_levels: int = 256
    """Levels into which the values of an array are rounded to be answered; of a text no use."""
    lowest: float = -1.0
    """The least value of an array, at which its first level begins."""
    highest: float = 1.0
    """The greatest value of an array, at which its last level ends."""
    stream: StreamShape = field(default_factory=StreamShape)
    """Sizes that the network says; leave it out."""

    def named(self, name: str, network: Network) -> "AutoregressiveOutput":
        """Return this answer with its input and the sizes of that."""
        found = replace(self, target=self.target or name)
        known = network.input_named(found.target)
        if isinstance(known, TextInput):
            shape = StreamShape(network.num_latents, known.num_tokens, 1, num_ids=known.vocabulary)
        elif isinstance(known, ArrayInput) and known.shape:
            # Where the first axis is that of the channels, a length says nothing of the cells: see network_problems().
            shape = StreamShape(
                network.num_latents, known.num_tokens, prod(known.cells[1:]), num_channels=known.raw_width
            )
        else:
            # network_problems() says what is wrong with the input.
            return found
        return replace(found, stream=shape)

    @property
    def unit(self) -> str:
        """What a bit is counted for: byte, token or element."""
        if self.stream.num_channels:
            return "element"
        # A tokenizer of just as many ids would be called bytes; nothing but the name of the metric hangs on it.
        return "byte" if self.stream.num_ids == _NUM_BYTES else "token"

    def continues(self) -> str:
        """Return the input whose last places are the latents."""
        return self.target

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the input."""
        return (("input", self.target),)

    def own_width(self, network: Network) -> int:  # noqa: ARG002
        """Return 0: the latents themselves answer."""
        return 0

    def num_queries(self, network: Network) -> int:
        """Return the latents."""
        return network.num_latents

    def queries(self, network: Network) -> "nn.Module":  # noqa: ARG002
        """Not called: nothing is asked beside the latents."""
        # own_width() is 0, as of an answer that pools: the decoder makes no queries for either.
        raise AssertionError("an autoregressive answer has no queries")

    def queries_cost(self, network: Network) -> Cost:  # noqa: ARG002
        """Return nothing."""
        return Cost()

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":
        """Return a norm and the product with the embedding of a text, or a layer with the levels of an array."""
        from model.outputs.modules.next_heads import NextIdHead, NextLevelHead

        if self.stream.num_channels:
            return NextLevelHead(width, self.stream.num_channels, self.num_levels)
        return NextIdHead(width, _embedding_width(self, network), self.stream.num_ids, lambda: embedding(self.target))

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:  # noqa: ARG002
        """Return the cost of the norm and the layers, over all latents."""
        N, stream, norm = network.num_latents, self.stream, Cost(2 * width)
        if stream.num_channels:
            return norm + linear(width, stream.num_channels * self.num_levels, N)
        narrow = _embedding_width(self, network)
        projection = Cost() if narrow == width else linear(width, narrow, N)
        # Of the product with the embedding only the bias is its own: the table is the input's, and is counted there.
        return norm + projection + Cost(stream.num_ids, 2 * N * narrow * stream.num_ids)

    def kept_by_head(self, width: int, network: Network) -> int:
        """Return the numbers of the norm, of the layer before the embedding, and of the logits with their loss."""
        stream = self.stream
        num_logits = stream.num_channels * self.num_levels or stream.num_ids
        narrow = _embedding_width(self, network)
        # Logits twice: the loss keeps their softmax beside them.
        return network.num_latents * (2 * width + narrow * (narrow != width) + 2 * num_logits)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        if not 0 <= self.prefix_dropout < 1:
            yield "prefix_dropout", f"must be 0 or more and less than 1, got {self.prefix_dropout}"
        if self.num_levels < 2:
            yield "num_levels", f"must be at least 2, got {self.num_levels}"
        if not -inf < self.lowest < self.highest < inf:
            yield "highest", f"must be a number above lowest, which is {self.lowest}, got {self.highest}"
        if self.stream != StreamShape():
            yield "stream", "follows from the network; leave it out"

    def network_problems(self, network: Network) -> Problems:
        """Yield (key, sentence) of what stands in the way of continuing this network's input."""
        known = network.input_named(self.target)
        if not isinstance(known, TextInput | ArrayInput):
            found = f"is {known.modality}" if known is not None else "is not there"
            yield "target", f"needs the text or the array inputs.{self.target}, which {found}; set it, or target"
            return
        if isinstance(known, ArrayInput):
            yield from self._array_problems(known)
        if network.num_latents > known.num_tokens:
            latents = f"num_latents is {network.num_latents}"
            yield "", f"has its latents at the last of {known.num_tokens} places, but {latents}; lower it"
        if network.mask_tokens:
            yield "", "hides no token behind another: set mask_tokens=false"

    def _array_problems(self, array: ArrayInput) -> Problems:
        if array.num_axes:
            yield "target", "needs an array without coordinates of its own: nobody knows those of the next cell"
        # The cells of a patch would be answered at once, and none of them could depend on the others.
        elif max(array.sides) > 1:
            yield (
                "target",
                f"needs a token for each cell, got inputs.{self.target}.patch={list(array.patch)}; leave it out",
            )
        elif array.channel_axis not in (None, len(array.shape) - 1):
            yield "target", f"needs an array whose channels are its last axis, got axes {list(array.axes)}"


def _embedding_width(output: AutoregressiveOutput, network: Network) -> int:
    return int(getattr(network.input_named(output.target), "embedding_width", 0))
