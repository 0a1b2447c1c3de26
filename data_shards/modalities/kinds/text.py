"""Text: UTF-8 to ids, one a byte, or one a token of a tokenizer.json."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional, Self

from data_shards.files.problems import Problem, at_least
from data_shards.files.quoting import counted
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared, nested
from data_shards.modalities.transform_config import MaskingConfig

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from data_shards.modalities.decoding.tokens import Tokens

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best
CHARACTERS_SHOWN = 160
MOST_BYTES = 1_024
"""Of a text, where a section is fitted to samples."""
BYTE_VOCABULARY = 6 + 256
"""Ids of bytes, after the special ones."""
USUAL_TOKENS = {
    "mask_token": ("[MASK]", "<mask>", "<|mask|>"),
    "pad_token": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"),
}
"""The names that tokenizers have for them."""


@dataclass(frozen=True)
class TextConfig(Modality):
    """Text as ids: int16 (num_bytes,), a byte of its UTF-8 plus 6, below that the special ids; or as its tokenizer
    makes them, int32 (num_tokens,)."""

    modality: Literal["text"] = "text"
    num_bytes: int = 64
    """Length of the array: longer texts are cut, shorter ones padded."""
    tokenizer: str = field(default="", metadata={"is_file": True})
    """A Hugging Face tokenizer.json, of which a run keeps a copy; empty reads bytes. Its own truncation and padding,
    and tokens that it puts around a text, are not used."""
    num_tokens: int = 64
    """Length of the array where there is a tokenizer."""
    mask_token: str = ""
    """Its token in the place of a hidden one; empty for [MASK] or <mask>."""
    pad_token: str = ""
    """Its token behind shorter texts; empty for [PAD] or <pad>."""
    masking: Optional[MaskingConfig] = None
    """Set to hide words, which the network then learns to fill in."""

    usual: ClassVar[tuple[str, ...]] = ("txt",)

    @property
    def dtype(self) -> str:  # type: ignore[override]  # it depends on the vocabulary here
        """The type of the ids."""
        # Ids of bytes end at 261; vocabularies of tokenizers go beyond the 32 767 of int16.
        return "int32" if self.tokenizer else "int16"

    @cached_property
    # cached_property writes into __dict__, past the frozen dataclass; fields and equality do not see it.
    def tokens(self) -> "Tokens":
        """The tokenizer; ValueError says what is wrong with its file."""
        from data_shards.modalities.decoding import tokens

        return tokens.read(self.tokenizer)

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """The names of the tokens that pad and that hide, by the keys of this section; without those that it lacks."""
        found = {key: self.tokens.special(getattr(self, key), usual) for key, usual in USUAL_TOKENS.items()}
        return {key: token for key, token in found.items() if token is not None}

    @property
    def length(self) -> int:
        """Bytes or tokens of the array."""
        return self.num_tokens if self.tokenizer else self.num_bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """The ids."""
        return (self.length,)

    @property
    def target(self) -> tuple[tuple[int, ...], str] | None:
        """The true ids of what is hidden, 0 elsewhere; -1 stands for the id 0."""
        return None if self.masking is None else (self.shape, self.dtype)

    @property
    def asks(self) -> tuple[str, str] | None:
        """Words that are hidden."""
        return None if self.masking is None else ("hidden words", "masking")

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        try:
            return {"max_tokens": self.length, "vocabulary": self.vocabulary}
        except ValueError:
            # Of which problems() says what is wrong.
            return {"max_tokens": self.length}

    @property
    def vocabulary(self) -> int:
        """One more than the greatest id."""
        return self.tokens.vocabulary if self.tokenizer else BYTE_VOCABULARY

    @property
    def too_long(self) -> str:
        """Return how a text is longer than the tokens or bytes that are read."""
        return f"longer than {self.length} {'tokens' if self.tokenizer else 'bytes'}"

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return ids of the text; of a longer text the beginning, in training any part."""
        import numpy as np

        from data_shards.modalities.transforms import masking, text

        ids, length, words, is_cut = text.fit_words(found[MAIN].content, self, rng)
        if self.masking is None:
            return Prepared(ids, length, is_cut=is_cut)
        # What a user has hidden himself: nothing more is hidden, and there is no truth to compare with.
        if self.masking.by_mark and (ids[:length] == text.mask_id(self)).any():
            return Prepared(ids, length, np.zeros_like(ids), is_cut=is_cut)
        if self.tokenizer:
            masked, target = masking.mask_tokens(ids, words, length, text.mask_id(self), self.masking, rng)
        else:
            masked, target = masking.mask_words(ids, length, self.masking, rng)
        return Prepared(masked, length, target, is_cut=is_cut)

    def of_prediction(self) -> Self:
        """Return the section that hides what a text marks; of a text without marks what an evaluation hides."""
        section = self.of_evaluation()
        return section if self.masking is None else replace(section, masking=replace(self.masking, by_mark=True))

    def hidden(self, ids: "np.ndarray") -> "np.ndarray":
        """Return where of ids the token stands that hides one."""
        import numpy as np

        from data_shards.modalities.transforms import text

        return np.equal(ids, text.mask_id(self)) if self.masking is not None else np.zeros(ids.shape, bool)

    def words(self, ids: "np.ndarray") -> str:
        """Return the text of ids."""
        from data_shards.modalities.transforms import text

        return text.words(ids, self)

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode a text and return its shape."""
        from data_shards.modalities.decoding.text import text

        return text(content).shape

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:
        """Return the bytes that nine of ten texts have at most."""
        from data_shards.modalities.fitting import longest

        # Not the longest: one long text would make most of all others padding.
        return {"num_bytes": longest([len(content) for content in contents], MOST_BYTES, 16)}

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Write the beginning of the text."""
        from data_shards.modalities.decoding.text import text
        from data_shards.modalities.drawing import write_words

        words = text(found[MAIN].content).tobytes().decode(errors="replace")
        write_words(axes, words if len(words) <= CHARACTERS_SHOWN else f"{words[:CHARACTERS_SHOWN]} ...")

    def draw_as_read(self, axes: "Axes", found: Members) -> None:
        """Write the beginning of the text; with a tokenizer the text of each token, | between two, and their number."""
        if not self.tokenizer:
            self.draw(axes, found)
            return
        from data_shards.modalities.drawing import write_words
        from data_shards.modalities.transforms import text

        ids = text.whole_text(bytes(found[MAIN].content), self)
        # One by one: the text of several tokens does not show where one ends.
        words = "|".join(self.words(ids[place : place + 1]) for place in range(min(len(ids), self.num_tokens)))
        cut = f", {self.num_tokens} read" if len(ids) > self.num_tokens else ""
        shown = words if len(words) <= CHARACTERS_SHOWN else f"{words[:CHARACTERS_SHOWN]} ..."
        write_words(axes, f"{shown}\n({counted(len(ids), 'token')}{cut})")

    def notes(self) -> Iterator[str]:
        """Yield what of the tokenizer's file is not used."""
        if self.tokenizer and self.tokens.unused:
            unused = " and ".join(self.tokens.unused)
            yield f"{self.tokenizer}: its own {unused}: not used; a text is cut or padded to num_tokens"

    @staticmethod
    def is_absent(content: Content) -> bool:
        """Return whether the text has no length: it says nothing, and the rest of its sample is sound."""
        return not len(content)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"num_bytes": self.num_bytes, "num_tokens": self.num_tokens})
        yield from nested(masking=self.masking)
        yield from self._tokenizer_problems() if self.tokenizer else self._byte_problems()

    def _byte_problems(self) -> Iterator[Problem]:
        # What has its default value cannot be told from what was left out, and is harmless.
        for key in ("num_tokens", "mask_token", "pad_token"):
            if getattr(self, key) != getattr(TextConfig, key):
                yield key, f"has no meaning for bytes, got {getattr(self, key)!r}; set tokenizer, or leave this out"

    def _tokenizer_problems(self) -> Iterator[Problem]:
        if self.num_bytes != TextConfig.num_bytes:
            yield "num_bytes", f"has no meaning with a tokenizer, got {self.num_bytes}; set num_tokens"
        try:
            found = self.special_tokens
        except ValueError as error:
            yield "tokenizer", str(error)
            return
        # Every short text needs it; the mask token is needed only where words are hidden.
        if "pad_token" not in found:
            yield "pad_token", self._lacking("pad_token", "follows a shorter text, such as its end of text")
        if self.masking is not None and "mask_token" not in found:
            yield "mask_token", self._lacking("mask_token", "stands for a hidden one")

    def _lacking(self, key: str, purpose: str) -> str:
        named, usual = getattr(self, key), ", ".join(USUAL_TOKENS[key])
        return (
            f"{self.tokenizer} has no token {repr(named) if named else usual}; set {key} to its token that {purpose}, "
            "or add one to it"
        )
