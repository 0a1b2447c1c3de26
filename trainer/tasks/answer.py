"""What a user is given of an answer: a row of a table a sample, with files where an answer is no number or word.

label   digit "7", digit_probability 0.98          flow   motion.flo, and a picture of it
text    words "the quick brown fox"                grid   the input, as a file of its modality
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np

from data_shards.modalities.modality import Modality

Cell = str | float | int | None | list[str] | list[float] | list["Cell"]


@dataclass(frozen=True)
class AnsweredFile:
    """A part of an answer that is a file of its own."""

    array: np.ndarray
    """What the network answered."""
    suffix: str
    encode: Callable[[np.ndarray], bytes]
    """Returns the content of the file."""

    @classmethod
    def of_numbers(cls, array: np.ndarray) -> "AnsweredFile":
        """Return the file of an array as it is."""
        return cls(array, "npy", _npy)

    @classmethod
    def of_input(cls, array: np.ndarray, section: Modality | None) -> "AnsweredFile":
        """Return the file that an input of this section has for such an array."""
        if section is None:
            return cls.of_numbers(array)
        suffix, content = section.file(array)
        return cls(array, suffix, lambda _: content)


Row = dict[str, Cell | AnsweredFile]
"""An answer for one sample by column."""


@dataclass(frozen=True)
class Telling:
    """What of a run decides how its answers are written."""

    inputs: Mapping[str, Modality] = field(default_factory=dict)
    """The sections of the data's inputs."""
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of the classes by the label that is answered, "" for the sample's own; numbers where there are none."""
    top: int = 1
    """The number of classes in an answer, the most likely first."""
    with_truth: bool = False
    """Whether the samples bring their true labels, which are then told too."""

    true_names: Sequence[Mapping[str, Sequence[str]]] = ()
    """For each sample of the batch the class names of its true labels, as of `class_names`."""

    def class_name(self, target: str, number: int) -> str:
        """Return the name of a class."""
        return _named(self.class_names, target, number)

    def true_class(self, target: str, place: int, number: int) -> str:
        """Return the name of a true class of the sample at a place of the batch."""
        return _named(self.true_names[place], target, number)


def _named(names: Mapping[str, Sequence[str]], target: str, number: int) -> str:
    classes = names.get(target, ())
    # More classes than names: those of adopted shards are numbers.
    return classes[number] if number < len(classes) else str(number)


def ranked(name: str, telling: Telling, target: str, logits: np.ndarray, probabilities: np.ndarray) -> Row:
    """Return columns with the most likely classes: NAME, NAME_probability, NAME_2, NAME_2_probability, ..."""
    row: Row = {}
    # By the logits, which an evaluation compares: two probabilities may round to one. Of equal ones the first.
    order = np.argsort(-logits, kind="stable")[: telling.top].tolist()
    for place, number in enumerate(order, 1):
        column = name if place == 1 else f"{name}_{place}"
        # Of NaN any order is as good: no class would be an answer.
        row[column] = None if np.isnan(logits).any() else telling.class_name(target, number)
        row[f"{column}_probability"] = float(probabilities[number])
    return row


def numbers(values: np.ndarray) -> Cell:
    """Return one number, or a list of several; NaN stands for what is not known."""
    found: list[float] = values.ravel().tolist()
    return found[0] if len(found) == 1 else found


def _npy(array: np.ndarray) -> bytes:
    content = BytesIO()
    np.save(content, array)
    return content.getvalue()
