"""What every kind of answer says of itself: a configuration from which queries, head, and cost follow.

A kind is one frozen dataclass in a file of its own; kinds.py lists them all. Its fields are what a user configures, its
methods all that the network asks: how wide its queries are, which modules make queries and answers, what they cost.

    latents (B, N, D)  --[cross-attend of the decoder]-->  rows (B, O, E)  --[head]-->  answer
                               ^
              queries (B or 1, O, E), unless the head pools the latents itself

The dataclasses import the standard library alone, so that a configuration loads without torch; the modules that they
make (queries.py, heads.py) are imported by the methods that make them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.config.cost import Cost
from model.config.decoder import DecoderConfig
from model.config.grids import Problems, not_negative

if TYPE_CHECKING:
    from torch import Tensor, nn


# An interface and not PerceiverConfig itself, which lists the kinds of outputs: each would import the other.
class Network(ABC):
    """What an answer depends on of the network that gives it."""

    num_latents: int
    """Number of latent vectors."""
    latent_width: int
    """Channels of a latent vector."""
    decoder: DecoderConfig
    """The decoder that all queries share."""
    mask_tokens: bool
    """Whether tokens of an input can be hidden."""

    @property
    @abstractmethod
    def token_width(self) -> int:
        """Channels of the joined tokens."""

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """Tokens of one sample, all inputs joined."""

    @property
    @abstractmethod
    def decoder_width(self) -> int:
        """Channels of the queries as the decoder takes them."""

    @abstractmethod
    def input_named(self, name: str) -> Any:  # noqa: ANN401  # of any modality
        """Return the configuration of an input; None where the network has none of that name."""


# kw_only: with positions, a field that is added here would move those of every kind, a plug-in's too.
@dataclass(frozen=True, kw_only=True)
class Output(ABC):
    """An answer of the network."""

    target: str = ""
    """The target. Each kind says what a name means, and what an empty name means."""
    loss_weight: float = 1.0
    """Weight of this answer's loss."""

    @abstractmethod
    def own_width(self, network: Network) -> int:
        """Return the channels of its own queries, before padding; 0 for an answer that pools the latents."""

    @abstractmethod
    def num_queries(self, network: Network) -> int:
        """Return how many rows of the latents it asks for: all of one sample."""

    @abstractmethod
    def queries(self, network: Network) -> "nn.Module":
        """Return the module that maps (tokens, points) to queries (B or 1, O, E)."""

    @abstractmethod
    # A function and not the table: as a parameter of two modules it would have two names in a checkpoint.
    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":
        """Return the module that maps decoded rows (B, O, width), or latents where it pools them, to the answer.

        `embedding` returns the table of a text input by the input's name.
        """

    @abstractmethod
    def queries_cost(self, network: Network) -> Cost:
        """Return the cost of its queries."""

    @abstractmethod
    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:
        """Return the cost of its head for so many decoded rows of so many channels."""

    # Apart from num_queries(): plans of memory and time go by what a training step decodes.
    def num_trained(self, network: Network) -> int:
        """Return how many rows training asks for."""
        return self.num_queries(network)

    def answers_points(self) -> bool:
        """Return whether a part of the queries can be decoded; `whole` then tells the head whether all are."""
        return False

    @property
    def fourier_resolution(self) -> tuple[int, ...]:
        """Twice the highest frequency of its Fourier queries on each axis; empty without such queries of a grid."""
        return ()

    def asked_at(self) -> str:
        """Return the input that holds the places of its queries; empty where the network knows them."""
        return ""

    # As the released code: Hugging Face's decodes rows for padding too, whose answers mean nothing.
    def asks_along(self) -> str:
        """Return the input whose places its queries follow, so that none is asked where none is; empty for no input."""
        return ""

    def continues(self) -> str:
        """Return the input whose last places are the latents, which see nothing after them; empty for learned
        latents."""
        return ""

    def kept_by_head(self, width: int, network: Network) -> int:  # noqa: ARG002  # by kinds that answer every latent
        """Return how many numbers of a sample a head that reads the latents keeps for the backward pass."""
        return 0

    def views(self) -> tuple[str, ...]:
        """Return the inputs of which each is read alone, in a pass of its own; empty where all are read together."""
        return ()

    def input_problems(self, name: str, shape: tuple[int, ...]) -> Problems:  # noqa: ARG002  # by kinds with inputs
        """Yield (key, sentence) of what does not go together with an input of the data that has this shape."""
        yield from ()

    @abstractmethod
    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return what the data must have to compare it with: kinds of targets, and of what (DataConfig.targets)."""

    def named(self, name: str, network: Network) -> "Output":  # noqa: ARG002  # by kinds that answer for an input
        """Return this answer with what its name and the network's inputs decide filled in."""
        return self

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem in its fields."""
        yield from not_negative(loss_weight=self.loss_weight)

    def network_problems(self, network: Network) -> Problems:  # noqa: ARG002  # by kinds that depend on it
        """Yield (key, sentence) of what this network cannot answer; asked where its parts have no problem."""
        yield from ()
