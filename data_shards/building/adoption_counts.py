"""What `perceiver data index` counts in adopted tars: labels, and what is not read or cannot be read."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.files.quoting import counted, cut, shown
from data_shards.format.annotations import NO_LABEL, OWN, Records, notes
from data_shards.format.members import LABEL, RECORD
from data_shards.format.tar_index import TarIndex
from data_shards.modalities.kinds.catalogue import contents, held_by, inputs_of

LABELS_ALONE = Records(labels=OWN.labels, named_labels=OWN.named_labels)
"""The fields of records that have labels and only fields of this program."""
_OWN_FIELDS = frozenset({OWN.labels, OWN.named_labels, OWN.weight, OWN.values})
# No field of a record has this name, which stands for all that are none of ours.
_OTHER = ""
# Of hundreds of kinds a person needs the most common ones.
_NUM_SHOWN = 5
_NUM_KEPT = 100


@dataclass
class Labels:
    """The labels of samples whose records are read in one way."""

    records: Records
    counts: Counter[int] = field(default_factory=Counter)
    """Samples of each class."""
    num_classes: Counter[str] = field(default_factory=Counter)
    """Classes of each further label."""
    num_values: Counter[str] = field(default_factory=Counter)
    """Numbers of each value."""
    num_labelled: int = 0
    num_doubled: int = 0
    """Samples that list a label twice."""
    num_bad: int = 0
    """Samples whose notes cannot be read."""
    first_bad: str = ""

    def add_sample(self, where: str, members: Mapping[str, bytes]) -> None:
        """Count the label and the record of a sample."""
        try:
            found = notes(members, self.records)
        except ValueError as error:
            self.num_bad += 1
            self.first_bad = self.first_bad or f"{where}: {error}"
            return
        # A set: a label in .cls that stands in the record's list as well is one label.
        labels = {*found.labels, found.label} - {NO_LABEL}
        self.counts.update(labels)
        self.num_doubled += found.is_doubled
        self.num_labelled += bool(labels or found.named_labels)
        # Of counters, | is the maximum of each: the largest label of all samples says how many classes there are.
        self.num_classes |= Counter({name: label + 1 for name, label in found.named_labels.items()})
        self.num_values |= Counter({name: len(numbers) for name, numbers in found.values.items()})

    def add(self, other: "Labels") -> None:
        """Take over what was counted elsewhere."""
        self.counts += other.counts
        self.num_classes |= other.num_classes
        self.num_values |= other.num_values
        self.num_labelled += other.num_labelled
        self.num_doubled += other.num_doubled
        self.num_bad += other.num_bad
        self.first_bad = self.first_bad or other.first_bad

    def sentences(self) -> Iterator[str]:
        """Yield what a user should know."""
        if self.num_doubled:
            yield (
                f"{counted(self.num_doubled, 'record lists', 'records list')} a class twice in "
                f"{self.records.labels!r}, which counts once; these are to be numbers of classes, such as [0, 2], "
                "and not a one or a zero for each class"
            )
        if self.num_bad:
            yield (
                f"{counted(self.num_bad, 'sample has', 'samples have')} a label or a record that cannot be read: "
                f"`perceiver data verify` lists what is bad; the first is {self.first_bad}"
            )


@dataclass
class Members:
    """The members of tars by what is done with them."""

    num_samples: int = 0
    num_empty: int = 0
    """Samples without a member that any modality reads."""
    unread: Counter[str] = field(default_factory=Counter)
    """Members that are not read, by their suffix, with # for the digits in it."""
    loose: Counter[str] = field(default_factory=Counter)
    """Members that belong to no sample, by their name, with # for the digits in it."""
    named: Counter[str] = field(default_factory=Counter)
    """Members that are read where an input names them, by their suffix."""
    early: str = ""
    """The remedy for a suffix that would be read if it did not begin so early; empty where there is none."""
    num_records: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    """Records that have each field that a record of this program may have, and those that have others."""
    other_fields: Counter[str] = field(default_factory=Counter)
    """Records that have each field of others, as far as there are not too many."""
    num_texts: int = 0
    """Records of others that hold a text, which an input may name."""

    def add_index(self, index: TarIndex) -> None:
        """Count the members of a tar's samples."""
        self.num_samples += index.num_samples
        for sample, key in enumerate(index.keys):
            extensions = index.members(sample)
            self.num_empty += not inputs_of(extensions)
            for extension in extensions:
                if held_by(extension) is None and extension not in (LABEL, RECORD):
                    # With # for digits: a suffix such as 0001.part would be another kind in each sample.
                    self.unread[re.sub(r"\d+", "#", extension)] += 1
                    # scan_1.5mm.png: to webdataset its suffix is 5mm.png. Renaming is the remedy, since both programs
                    # must agree on keys.
                    if not self.early and "." in extension and held_by(extension.rpartition(".")[2]):
                        self.early = _early(Path(key).name, extension)
                elif (held := held_by(extension)) and extension not in held[0]().roles[held[1]]:
                    self.named[extension] += 1

    def add_record(self, record: bytes) -> None:
        """Count which fields a record has."""
        self.num_records += 1
        try:
            found = json.loads(record)
        except (ValueError, RecursionError, MemoryError):
            found = None
        # What is no object is counted as a record of others: nothing can be taken of it.
        names = set(found) if isinstance(found, dict) else {_OTHER}
        if isinstance(found, dict):
            self.num_texts += any(isinstance(found[name], str) for name in names - _OWN_FIELDS)
        self.fields.update({name if name in _OWN_FIELDS else _OTHER for name in names})
        # Sorted: of equally common fields the same ones are told by every process.
        for name in sorted(names - _OWN_FIELDS - {_OTHER}):
            # Somebody's records may have a field of their own each.
            if name in self.other_fields or len(self.other_fields) < _NUM_KEPT:
                self.other_fields[name] += 1

    def add(self, other: "Members") -> None:
        """Take over what was counted elsewhere."""
        self.num_samples += other.num_samples
        self.num_empty += other.num_empty
        self.unread += other.unread
        self.named += other.named
        self.loose += other.loose
        self.early = self.early or other.early
        self.num_records += other.num_records
        self.fields += other.fields
        self.other_fields += other.other_fields
        self.num_texts += other.num_texts

    @property
    def records_hold_labels_alone(self) -> bool:
        """True where every record has labels, and nothing but what a record of this program may have."""
        return 0 < self.num_records == self.fields[OWN.labels] and not self.fields[_OTHER]

    def sentences(self, records: Records) -> Iterator[str]:
        """Yield what a user should know, where this is taken of the records."""
        if self.loose:
            yield f"members that are hidden or have no suffix belong to no sample: {listed(self.loose)}"
        if self.unread:
            yield f"members that are not read: {listed(self.unread, '.')}{self.early}"
        if self.named:
            first = cut(self.named.most_common(1)[0][0])
            remedy = f"data.inputs.NAME.members={first} of a run"
            yield f"members that are read where an input names them, as {remedy}: {listed(self.named, '.')}"
        if self.num_empty and self.num_texts:
            yield (
                f"{self.num_empty} of {self.num_samples} samples have no member but their records: their texts are "
                f"read where an input names one, as data.inputs.NAME.members={RECORD}.FIELD of a run; without it they "
                "are bad samples"
            )
        elif self.num_empty:
            yield f"{self.num_empty} of {self.num_samples} samples have no member that is read: they are bad samples"
        # A field that is there and not taken is said: in silence a label or a weight would be lost.
        options = {name: getattr(records, name) for name in (OWN.labels, OWN.named_labels, OWN.weight, OWN.values)}
        for name, taken in options.items():
            if self.fields[name] and taken != name:
                option = f"--{name.replace('_', '-')}-from"
                records_have = counted(self.fields[name], "record has", "records have")
                yield f"{records_have} {name!r}, which is not taken; {option} {name} takes it"
        if others := self.other_fields - Counter(dict.fromkeys(options.values(), self.num_records)):
            yield f"fields of records that are not taken: {listed(others)}; --labels-from FIELD takes one as the label"

    def refusal(self) -> str:
        """Return the sentence for tars in which nothing is read; empty where something is."""
        if self.num_empty < self.num_samples or self.num_texts:
            return ""
        read = " ".join(
            f".{extension}" for extension in sorted({suffix for kind in contents() for suffix in kind.usual})
        )
        found = listed(self.unread, ".") or "only labels and records"
        return f"holds no member that is read, but {found}{self.early}; these are read: {read}"


def listed(counts: Counter[str], before: str = "") -> str:
    """Return the most common of the names with how often each is there."""
    shown = [f"{count} {before}{cut(name)}" for name, count in counts.most_common(_NUM_SHOWN)]
    return ", ".join([*shown, *([counted(len(counts) - _NUM_SHOWN, "other kind")] if len(counts) > _NUM_SHOWN else [])])


def _early(key: str, extension: str) -> str:
    renamed = f"{key}_{extension.replace('.', '_', extension.count('.') - 1)}"
    name = cut(f"{key}.{extension}")
    return f" (a suffix begins at the first dot: {name} is of sample {shown(key)}; rename it to {cut(renamed)})"
