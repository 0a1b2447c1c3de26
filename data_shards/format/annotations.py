"""Annotations of a sample: its label in .cls, and the fields of .json that the folder's manifest names.

Nothing else reads them, so what `perceiver data index` counts and `perceiver data verify` checks is what training uses.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_shards.files.quoting import shown
from data_shards.format.members import LABEL, RECORD

NO_LABEL = -1
MAX_LABEL = 1_000_000
"""A larger label is a mistake: the manifest lists every class up to the largest."""
MAX_WEIGHT = 1e12
"""A larger weight is a mistake, and the sum over a batch must stay far below what float32 can hold."""
MAX_VALUE = 1e30
"""A larger value is a mistake: its square is beyond what float32 can hold."""
_MAX_DIGITS = 20


@dataclass(frozen=True)
class Records:
    """The fields of a .json member that speak of its sample; "" where none does, whatever the record holds."""

    labels: str = ""
    """A class, or a list of classes."""
    named_labels: str = ""
    """An object: name of a further label to its class."""
    weight: str = ""
    """The weight of the sample in the loss."""
    values: str = ""
    """An object: name of a value to its number, or to a list of numbers; WHOLE for the record itself."""

    def __bool__(self) -> bool:
        return bool(self.labels or self.named_labels or self.weight or self.values)


WHOLE = "."
"""The record itself is the object that holds values by name."""
OWN = Records(labels="labels", named_labels="named_labels", weight="weight", values="values")
"""What `perceiver data build` writes."""


@dataclass(frozen=True)
class Notes:
    """The annotations of a sample: everything except its modalities."""

    label: int = NO_LABEL
    labels: tuple[int, ...] = ()
    """All labels, if a sample has several."""
    named_labels: dict[str, int] = field(default_factory=dict)
    weight: float = 1.0
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Numbers by name; NaN for one of several that is not known."""
    is_doubled: bool = field(default=False, compare=False)
    """True if a label stands twice in the list; it counts once."""


def notes(
    members: Mapping[str, bytes | memoryview],
    records: Records = OWN,
    names: Sequence[str] | None = None,
    value_names: Sequence[str] | None = None,
) -> Notes:
    """Return the notes of a sample with these members; ValueError names the member and says what is wrong with it.

    `names` are the further labels that are wanted, `value_names` the values; None takes all of them.
    """
    label = _label(bytes(members[LABEL])) if LABEL in members else NO_LABEL
    if RECORD not in members or not records:
        return Notes(label)
    fields = _fields(bytes(members[RECORD]))
    listed = _labels(fields, records.labels)
    # A class that is listed twice is still one class of the sample.
    labels = tuple(dict.fromkeys(listed))
    named = _named_labels(fields, records.named_labels, names)
    weight = _weight(fields, records.weight)
    if not all(0 <= number <= MAX_LABEL for number in (*labels, *named.values())):
        found = shown([*labels, *named.values()])
        raise ValueError(f".{RECORD}: labels {found} are out of range: labels are from 0 to {MAX_LABEL}")
    # NaN, which JSON as Python reads it may hold, fails this comparison, too.
    if not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(f".{RECORD}: weight {weight} is out of range: a weight is from 0 to {MAX_WEIGHT:g}")
    values = _values(fields, records.values, value_names)
    return Notes(label, labels, named, weight, values, is_doubled=len(labels) < len(listed))


def _label(content: bytes) -> int:
    """Return the label, NO_LABEL where -1 stands for none."""
    # Of bytes, not of a text: isdigit of a text also takes the digits of other scripts.
    digits = content.strip()
    if digits == b"%d" % NO_LABEL:
        return NO_LABEL
    text = digits.decode(errors="replace")
    if not digits.removeprefix(b"-").isdigit():
        raise ValueError(f".{LABEL}: label is not a number from 0 to {MAX_LABEL}: {shown(text)}")
    # The length first: Python refuses a number of more than 4,300 digits with an error that names no member.
    if not digits.isdigit() or len(digits) > _MAX_DIGITS or int(digits) > MAX_LABEL:
        raise ValueError(f".{LABEL}: label {text[:_MAX_DIGITS]} is out of range: labels are from 0 to {MAX_LABEL}")
    return int(digits)


def _fields(record: bytes) -> dict[str, Any]:
    """Return the fields of a record; none where it is JSON of another kind than an object."""
    try:
        fields = json.loads(record)
    # RecursionError: json calls itself for each bracket, so a record of a few thousand of them ends there.
    except (ValueError, RecursionError, MemoryError) as error:
        sentence = f"{type(error).__name__}: {error}"
        raise ValueError(f".{RECORD}: weight or labels are not numbers: it is no JSON ({sentence})") from error
    return fields if isinstance(fields, dict) else {}


def _labels(fields: Mapping[str, Any], name: str) -> tuple[int, ...]:
    given = fields.get(name) if name else None
    if given is None:
        return ()
    listed = given if isinstance(given, list) else [given]
    return tuple(_whole(label, name) for label in listed)


def _named_labels(fields: Mapping[str, Any], name: str, names: Sequence[str] | None) -> dict[str, int]:
    given = fields.get(name) if name else None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _not_numbers(name, given)
    wanted = given if names is None else [label for label in names if label in given]
    # null is how a record says that it has none, as a missing name is.
    return {label: _whole(given[label], f"{name}.{label}") for label in wanted if given[label] is not None}


def _values(fields: Mapping[str, Any], name: str, wanted: Sequence[str] | None) -> dict[str, tuple[float, ...]]:
    """Return the numbers of each value that is there; of a whole record all that are numbers, where none is named."""
    given = fields if name == WHOLE else fields.get(name) if name else None
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(  # noqa: TRY004 - a fault of the data
            f".{RECORD}: values are not numbers by name: {name} is {shown(given)}"
        )
    if wanted is None:
        wanted = [key for key in given if name != WHOLE or _are_numbers(given[key])]
    return {key: _numbers(given[key], key) for key in wanted if given.get(key) is not None}


def _are_numbers(given: object) -> bool:
    """Return whether this is a number, or a list of numbers in which null stands for those that are not known."""
    listed = given if isinstance(given, list) else [given]
    known = [number for number in listed if number is not None]
    # In Python True is an int: without the second test, true would be the number 1, here and below.
    return bool(known) and all(isinstance(number, int | float) and not isinstance(number, bool) for number in known)


def _numbers(given: Any, name: str) -> tuple[float, ...]:  # noqa: ANN401  # of JSON
    if not _are_numbers(given):
        raise ValueError(f".{RECORD}: value {name} is no number: {shown(given)}; write a number, or null for none")
    listed = given if isinstance(given, list) else [given]
    found = [math.nan if number is None else number for number in listed]
    # As the network gets them: what float32 cannot hold is infinite there.
    if any(abs(number) > MAX_VALUE for number in found):
        raise ValueError(f".{RECORD}: value {name} is out of range: {shown(given)} is beyond {MAX_VALUE:g}")
    return tuple(map(float, found))


def _weight(fields: Mapping[str, Any], name: str) -> float:
    given = fields.get(name) if name else None
    if given is None:
        return 1.0
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _not_numbers(name, given)
    try:
        return float(given)
    # JSON has integers of any length; the caller refuses infinity as out of range.
    except OverflowError:
        return math.inf


def _whole(given: object, name: str) -> int:
    """Return a whole number as it stands in JSON, with or without a decimal point."""
    # Other programs, pandas among them, write whole numbers with a point where a column has gaps.
    if isinstance(given, float) and given.is_integer():
        return int(given)
    if isinstance(given, bool) or not isinstance(given, int):
        raise _not_numbers(name, given)
    return given


def _not_numbers(name: str, given: object) -> ValueError:
    return ValueError(f".{RECORD}: weight or labels are not numbers: {name} is {shown(given)}")
