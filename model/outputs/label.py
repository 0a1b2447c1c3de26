"""Answers about classes: the one of a sample, or all of several that do not exclude each other."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from model.config.grids import Problems, positive
from model.outputs.vector import VectorOutput


@dataclass(frozen=True, kw_only=True)
class LabelOutput(VectorOutput):
    """The class of a sample. `target` is one of data.labels; empty for the sample's own label."""

    kind: Literal["label"] = "label"
    """Chooses this kind of answer."""
    num_classes: int = 1_000
    """Number of classes."""
    class_weights: tuple[float, ...] = ()
    """The weight of each class in the loss, for rare classes; empty means equal weights."""

    @property
    def num_answered(self) -> int:
        """A logit a class."""
        return self.num_classes

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the label."""
        return (("named label", self.target) if self.target else ("label", ""),)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        yield from positive(num_classes=self.num_classes)
        yield from class_weight_problems(self.class_weights, self.num_classes)


@dataclass(frozen=True, kw_only=True)
class LabelsOutput(VectorOutput):
    """All classes of a sample, as AudioSet's. The target is its list."""

    kind: Literal["labels"] = "labels"
    """Chooses this kind of answer."""
    num_classes: int = 1_000
    """Number of classes."""
    # softmax as in Perceiver IO's pretraining on JFT-300M, with some 18 000 classes (appendix A.2).
    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """sigmoid asks yes or no of each class. softmax asks for one distribution, in which a sample's classes have equal
    parts: for very many classes, of which a sample has a few."""
    class_weights: tuple[float, ...] = ()
    """The weight of each class in the loss; empty means equal weights."""

    @property
    def num_answered(self) -> int:
        """A logit a class."""
        return self.num_classes

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the list of labels."""
        return (("labels", ""),)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        yield from positive(num_classes=self.num_classes)
        yield from class_weight_problems(self.class_weights, self.num_classes)
        if self.target:
            yield "target", f"must be empty, since a sample has one list of labels, got {self.target!r}; leave it out"


def class_weight_problems(weights: tuple[float, ...], num_classes: int) -> Problems:
    """Yield what is wrong with the weights of the classes."""
    if weights and len(weights) != num_classes:
        yield "class_weights", f"needs one number for each of the {num_classes} classes, or none; got {len(weights)}"
    # With all 0 the loss would be divided by 0.
    if not all(0 <= weight < inf for weight in weights) or (weights and not any(weights)):
        yield "class_weights", f"must be 0 or more, and not all 0, got {tuple(weights)}"
