"""Text: UTF-8 to ids (num_bytes,), one a byte."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional

from data_shards.files.problems import Problem, at_least
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared, nested
from data_shards.modalities.transform_config import MaskingConfig

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best
CHARACTERS_SHOWN = 160


@dataclass(frozen=True)
class TextConfig(Modality):
    """Text as int16 ids (num_bytes,): a byte of its UTF-8 plus 6, below that the special ids."""

    modality: Literal["text"] = "text"
    num_bytes: int = 64
    """Length of the array: longer texts are cut, shorter ones padded."""
    masking: Optional[MaskingConfig] = None
    """Set to hide words, which the network then learns to fill in."""

    usual: ClassVar[tuple[str, ...]] = ("txt",)
    dtype: ClassVar[str] = "int16"

    @property
    def shape(self) -> tuple[int, ...]:
        """The ids."""
        return (self.num_bytes,)

    @property
    def target(self) -> tuple[tuple[int, ...], str] | None:
        """The true ids of what is hidden, 0 elsewhere."""
        return None if self.masking is None else (self.shape, self.dtype)

    @property
    def asks(self) -> tuple[str, str] | None:
        """Words that are hidden."""
        return None if self.masking is None else ("hidden words", "masking")

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"max_tokens": self.num_bytes}

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return ids of the text; of a longer text the beginning, in training any part."""
        from data_shards.modalities.transforms import masking, text

        ids, length = text.fit(found[MAIN].content, self, rng)
        if self.masking is None:
            return Prepared(ids, length)
        masked, target = masking.mask_words(ids, length, self.masking, rng)
        return Prepared(masked, length, target)

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode a text and return its shape."""
        from data_shards.modalities.decoding.text import text

        return text(content).shape

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Write the beginning of the text."""
        from data_shards.modalities.decoding.text import text
        from data_shards.modalities.drawing import write_words

        words = text(found[MAIN].content).tobytes().decode(errors="replace")
        write_words(axes, words if len(words) <= CHARACTERS_SHOWN else f"{words[:CHARACTERS_SHOWN]} ...")

    @staticmethod
    def is_absent(content: Content) -> bool:
        """Return whether the text has no length: it says nothing, and the rest of its sample is sound."""
        return not len(content)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"num_bytes": self.num_bytes})
        yield from nested(masking=self.masking)
