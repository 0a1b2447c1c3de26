"""Bytes or tokens of a text: an embedding plus a learned position, added."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config.cost import Cost
from model.modalities.input import Input, axes

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TextInput(Input):
    """Bytes or tokens: an embedding plus a learned position, added."""

    modality: Literal["text"] = "text"
    max_tokens: int = 0
    """Longest text, shorter ones are padded and masked; 0 as in the data."""
    vocabulary: int = 262
    """Ids; 262 are the 256 bytes after PAD, BOS, EOS, MASK, CLS and SEP, or as many as the data's tokenizer has."""
    # As in the second paper's language models (table 11).
    embedding_width: int = 768
    """Channels of the embedding and of the position."""

    sizes: ClassVar[tuple[str, ...]] = ("max_tokens",)
    dtype: ClassVar[str] = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """Places, of which a batch may have fewer."""
        return (self.max_tokens,)

    @property
    def grid(self) -> tuple[int, ...]:
        """Places in the text."""
        return (self.max_tokens,)

    @property
    def content_width(self) -> int:
        """Channels of the embedding."""
        return self.embedding_width

    @property
    def ids(self) -> tuple[int, int] | None:
        """The vocabulary."""
        return 0, self.vocabulary

    @property
    def learns(self) -> bool:
        """An embedding is learned."""
        return True

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Return whether it reads texts of that many places."""
        # Shorter batches too: the tokens that are not there cost nothing.
        return len(shape) == 1 and shape[0] <= self.max_tokens

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.values import TextAdapter

        return TextAdapter(self)

    def cost(self) -> Cost:
        """Return the parameters of the embedding and of the positions."""
        # Rows are looked up and added: no product, so no operations.
        return Cost((self.vocabulary + self.max_tokens) * self.embedding_width)

    def fitted(self) -> dict[str, Any]:
        """Return the width of the embedding."""
        return {"embedding_width": 64}

    def meaning(self, name: str) -> str:  # noqa: ARG002 - of other modalities
        """Return what the values of the input are."""
        ids = f"int64 ({axes(self.shape)}), ids below {self.vocabulary}"
        return (
            f"{ids}; of bytes: 6 and the byte, filled up with 0; of a tokenizer: its ids, filled up with its pad token"
        )
