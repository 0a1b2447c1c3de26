"""A label as input: the class of a sample as one number, hidden now and then so that a network learns to do without.

A label that is hidden is -1, as one that is not known: nothing that reads a batch can see it. Its length stays 1, and a
network with mask tokens puts the learned one in its place; a sample without a label has no token at all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from data_shards.files.problems import Problem, at_least, probabilities
from data_shards.files.quoting import shown
from data_shards.format.annotations import MAX_LABEL, NO_LABEL
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_MOST_DIGITS = 20


@dataclass(frozen=True)
class LabelConfig(Modality):
    """The class of a sample, int64 (); -1 where it is hidden. `members: json.named_labels.NAME` reads a further label
    of a table."""

    modality: Literal["label"] = "label"
    # Those of Kinetics-700, as of the network's input.
    num_classes: int = 700
    """Number of classes."""
    hide: float = 0.5
    """Probability that training hides the label (Perceiver IO, section 4.3). The network needs mask_tokens=true."""
    hide_in_evaluation: bool = True
    """Whether every split but that of training hides all labels, or none."""

    usual: ClassVar[tuple[str, ...]] = ("cls",)
    dtype: ClassVar[str] = "int64"
    is_annotation: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"num_classes": self.num_classes}

    @property
    def hides(self) -> bool:
        """Whether a label is hidden anywhere."""
        return self.hide > 0 or self.hide_in_evaluation

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return the class, or -1."""
        import numpy as np

        label = _decoded(found[MAIN].content)
        if label >= self.num_classes:
            raise ValueError(f"label {label} is out of range: num_classes of the input is {self.num_classes}")
        # One draw a label, whatever the probability: another one leaves all other draws of a sample as they are.
        is_hidden = self.hide_in_evaluation if rng is None else rng.random() < self.hide
        return Prepared(np.array(NO_LABEL if is_hidden else label, np.int64), 1)

    def stand_in(self, members: Mapping[str, Content]) -> tuple[str, bytes] | None:  # noqa: ARG002 - any will do
        """Return any label, which an evaluation hides; nothing where it shows them."""
        pattern = self.patterns[0]
        return (pattern, b"0") if self.hide_in_evaluation and pattern in self.usual else None

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode a label and return the shape of a number."""
        _decoded(content)
        return ()

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Write the number of the class."""
        from data_shards.modalities.drawing import write_words

        write_words(axes, str(_decoded(found[MAIN].content)))

    @staticmethod
    def is_absent(content: Content) -> bool:
        """Return whether the label is -1, which says that there is none."""
        return bytes(content).strip() == b"%d" % NO_LABEL

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"num_classes": self.num_classes})
        yield from probabilities({"hide": self.hide})


def _decoded(content: Content) -> int:
    digits = bytes(content).strip()
    # Of bytes, and not too many: see format/annotations.py.
    if not digits.isdigit() or len(digits) > _MOST_DIGITS or int(digits) > MAX_LABEL:
        found = shown(digits.decode(errors="replace"))
        raise ValueError(f"label is not a number from 0 to {MAX_LABEL}: {found}")
    return int(digits)
