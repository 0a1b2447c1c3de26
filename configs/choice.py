"""Sections whose class one of their keys chooses: several under the user's own names, or one.

A field `dict[str, Any]` is such a section where its metadata name the key and the classes:

    inputs: dict[str, Any] = field(default_factory=dict, metadata={"chosen_by": "modality", "among": {"image": Image}})

A field `Any` whose default is None is one such section, or none. Each class is a frozen dataclass with that key as a
field: `modality: Literal["image"] = "image"`. So the configuration that is written names the class again. The dataclass
around may say where an entry without the key looks for it, in the metadata of its own field:
{"follows": {"inputs": "data.inputs"}} is the entry of the same name in data.inputs.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf, read_write

from data_shards.files.quoting import shown

Pairs = Sequence[tuple[str, Any]]
"""Dotted keys and their values, in the order in which they are merged."""
_NAME = re.compile(r"[\w-][\w -]*")


@dataclass(frozen=True)
class Choice:
    """A section of named entries."""

    place: str
    """Its dotted key."""
    key: str
    """The key of an entry that chooses its class."""
    classes: Mapping[str, type]
    """The classes by the value of that key."""
    follows: str
    """The section whose entry of the same name says the class of an entry that does not; empty where there is none."""
    is_single: bool = False
    """The place is the one entry itself, which has no name."""

    def place_of(self, name: str) -> str:
        """Return the dotted key of an entry."""
        return self.place if self.is_single else f"{self.place}.{name}"

    def parts(self, key: str) -> tuple[str, str] | None:
        """Return the entry that a dotted key is about, and the key within it; None where it is about none."""
        if self.is_single:
            # With the dots: a key model.networks is none of the section model.network.
            return ("", key.removeprefix(self.place).lstrip(".")) if f"{key}.".startswith(f"{self.place}.") else None
        if not key.startswith(f"{self.place}."):
            return None
        name, _, rest = key.removeprefix(f"{self.place}.").partition(".")
        return name, rest


def choices(schema: type[Any], prefix: str = "", follows: Mapping[str, str] | None = None) -> Iterator[Choice]:
    """Yield every section of named entries of a dataclass and of those in it."""
    hints = get_type_hints(schema)
    for field in fields(schema):
        place = f"{prefix}{field.name}"
        if "chosen_by" in field.metadata:
            leader = (follows or {}).get(field.name, "")
            is_single = field.default is None
            yield Choice(place, field.metadata["chosen_by"], field.metadata["among"], leader, is_single)
        elif is_dataclass(kind := hints[field.name]) and isinstance(kind, type):
            yield from choices(kind, f"{place}.", field.metadata.get("follows"))


def without_removed(found: Sequence[Choice], pairs: Pairs) -> list[tuple[str, Any]]:
    """Return the pairs without the entries that a later NAME=null takes away."""
    kept: list[tuple[str, Any]] = []
    for key, value in pairs:
        if value is None and any((about := choice.parts(key)) and not about[1] for choice in found):
            # With the dot: NAME=null must not take NAME2 away.
            kept = [pair for pair in kept if not f"{pair[0]}.".startswith(f"{key}.")]
        else:
            kept.append((key, value))
    return kept


def seeded(
    schema: type[Any], found: Sequence[Choice], pairs: Pairs, problems: list[str]
) -> tuple[DictConfig, list[tuple[str, Any]]]:
    """Return the defaults, with the entries that the pairs name, and those pairs that can be merged into them.

    What is wrong with the choice of a class is added to the problems, one sentence an entry.
    """
    config = deepcopy(_defaults(schema))  # type: ignore[arg-type]  # it takes the hash of a class for an object's
    of_entries = {choice.place: _entries(choice, pairs) for choice in found}
    refused = set()
    # OmegaConf checks keys and types only of a class that it knows: first each entry gets the defaults of its own.
    for choice in found:
        for name, entry in of_entries[choice.place].items():
            leader = of_entries.get(choice.follows, {}).get(name, {})
            kind = entry.get(choice.key, leader.get(choice.key))
            told = False
            if choice.key not in entry and choice.key in leader:
                of_leader = next(other for other in found if other.place == choice.follows)
                # What is wrong with the leader is reported there.
                told = _problem(of_leader, name, leader, kind) is not None
                kind = kind if told else _followed(choice, of_leader.classes[str(kind)])
            if sentence := _problem(choice, name, entry, kind):
                refused.add(choice.place_of(name))
                problems += [] if told else [sentence]
            else:
                parent, _, last = choice.place_of(name).rpartition(".")
                entries = OmegaConf.select(config, parent)
                # A frozen dataclass is read-only to OmegaConf too.
                with read_write(entries):
                    entries[last] = _defaults(choice.classes[str(kind)])
    left = [(key, value) for key, value in pairs if not _is_of(refused, found, key)]
    return config, [pair for pair in left if not _is_superseded(found, of_entries, pair)]


@cache
def _defaults(kind: type[object]) -> DictConfig:
    """Return a section with the defaults of a class, to be copied, which takes half as long as to make one."""
    made = OmegaConf.structured(kind)
    assert isinstance(made, DictConfig)
    return made


def _followed(choice: Choice, leader: type) -> object:
    """Return the name under which a class of the leader is known here: its own, or that of what it is derived from."""
    names = [getattr(base, choice.key, None) for base in leader.__mro__]
    return next((name for name in names if isinstance(name, str) and name in choice.classes), names[0])


def _entries(choice: Choice, pairs: Pairs) -> dict[str, dict[str, Any]]:
    """Return what is said of each entry; under "" what stands in the place of all of it."""
    entries: dict[str, dict[str, Any]] = {}
    for key, value in pairs:
        if about := choice.parts(key):
            entries.setdefault(about[0], {})[about[1]] = value
    return entries


def _is_of(refused: set[str], found: Sequence[Choice], key: str) -> bool:
    return any((about := choice.parts(key)) and choice.place_of(about[0]) in refused for choice in found)


def _is_superseded(
    found: Sequence[Choice], of_entries: Mapping[str, Mapping[str, Mapping[str, Any]]], pair: tuple[str, Any]
) -> bool:
    """Return whether a pair chooses a class that a later one replaces by another."""
    for choice in found:
        about = choice.parts(pair[0])
        # Merged into an entry of the later class, the earlier name would be refused as none that this class can have.
        if about and about[1] == choice.key:
            return bool(of_entries[choice.place][about[0]][choice.key] != pair[1])
    return False


def _problem(choice: Choice, name: str, entry: Mapping[str, Any], kind: object) -> str | None:
    """Return what is wrong with an entry as a whole, in one sentence, if anything is."""
    place, known = choice.place_of(name), ", ".join(sorted(choice.classes))
    if not choice.classes:
        return f"{place}: none of the plug-ins has such a class; name the file with one in plugins"
    if not choice.is_single and not _NAME.fullmatch(name):
        return f"{choice.place}: has the name {shown(name)}; names are of letters, digits, spaces, - and _"
    if entry.get("", {}) != {}:
        given = type(entry[""]).__name__
        own = choice.key if choice.is_single else "NAME"
        return f"{place} = {shown(entry[''])}: expected a section with keys of its own, {place}.{own}=..., got {given}"
    if kind is None:
        has_dot = any(key.endswith(f".{choice.key}") for key in entry)
        remedy = "; a name has no full stop" if has_dot else ""
        return f"{place}.{choice.key}: is not set; set it to one of {known}{remedy}"
    if not isinstance(kind, str) or kind not in choice.classes:
        close = difflib.get_close_matches(str(kind), choice.classes, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{place}.{choice.key} = {shown(kind)}: expected one of {known}{hint}"
    return None
