"""A split of a shard folder, checked against the needs of a run."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data_shards.config import DataConfig
from data_shards.files.quoting import counted, cut, shown
from data_shards.format.manifest import Split
from data_shards.loading.admission import Intake
from data_shards.loading.shard_folders import Place

_NUM_SHOWN = 10


@dataclass(frozen=True)
class Dataset:
    """The source of a loader; a mixture has several."""

    name: str
    """Names it in the quarantine list and in messages; empty where it is the only one."""
    folder: Place
    split_name: str
    split: Split
    label_names: tuple[str, ...]
    named_labels: Mapping[str, tuple[str, ...]]
    """Class names of each further label by its name."""
    values: Mapping[str, int]
    """The number of numbers of each value, by its name."""
    intake: Intake
    """The intake of its samples, with only the inputs that are taken from this dataset."""
    weight: float = 1.0
    num_left_out: int = 0
    """Samples of the split that lack what data.require names."""

    @property
    def config(self) -> DataConfig:
        """The run's configuration, with the inputs that are taken from this dataset."""
        return self.intake.config


def served(
    folder: Place,
    split_name: str,
    config: DataConfig,
    *,
    name: str = "",
    weight: float = 1.0,
    only: Sequence[str] = (),
) -> Dataset:
    """Return the dataset; ValueError names the first reason for which it cannot serve the run.

    `only` names the inputs that are taken from it; where it is empty, all are that it has.
    """
    shards = folder.manifest()
    split = shards.split(split_name)
    there = inputs_in(split, config)
    for wanted in only:
        if wanted not in there:
            raise ValueError(
                f"data.datasets.{name}.inputs has {shown(wanted)}, which is not in the shards ({_listed(there)}) "
                f"or not in the run ({_listed(config.inputs)}); leave it out"
            )
    # An input that it lacks is no fault: its samples have zeros and the length 0 there.
    taken = set(only) or there
    num_samples = split.num_samples
    # What lacks a required input is left out before the order is made, so that every epoch has the same samples.
    split = folder.served(split_name, config.required_members)
    return Dataset(
        name,
        folder,
        split_name,
        split,
        shards.label_names,
        shards.named_labels,
        shards.values,
        Intake.of(shards, config.only(taken)),
        weight,
        num_samples - split.num_samples,
    )


def inputs_in(split: Split, config: DataConfig) -> set[str]:
    """Return the inputs of a run that at least one sample of a split has."""
    sections = config.ordered_inputs.items()
    return {name for name, section in sections if split.shards.num_samples_with(section.patterns).any()}


def check_inputs(datasets: Sequence[Dataset], split_name: str, config: DataConfig) -> None:
    """Raise ValueError for an input of the run that no dataset serves."""
    # A dataset of a mixture need not have all inputs, but one that none has would be an array of zeros for ever.
    taken = {name for dataset in datasets for name in dataset.config.inputs}
    for name, section in config.ordered_inputs.items():
        if name not in taken:
            suffixes = sum((dataset.split.shards.suffixes for dataset in datasets), Counter[str]())
            there = [f".{cut(suffix)}" for suffix, _ in suffixes.most_common(_NUM_SHOWN)]
            reads = ", ".join(f".{pattern}" for pattern in section.patterns)
            raise ValueError(
                f"{datasets[0].folder}: no sample of split {shown(split_name)} has {name}, which reads {reads}, only "
                f"{_listed(there)}; set data.inputs.{name}.members to one of these, or data.inputs.{name}=null and "
                f"model.inputs.{name}=null"
            )


def check_classes(datasets: Sequence[Dataset]) -> None:
    """Raise ValueError where the datasets name different classes, or a class has no sample to train on."""
    label_names = shared_classes({str(dataset.folder): dataset.label_names for dataset in datasets})
    # Over all datasets: one of a mixture may lack a class that another has.
    counts = sum((Counter(dict(enumerate(dataset.split.label_counts))) for dataset in datasets), Counter[int]())
    empty = [name for label, name in enumerate(label_names) if not counts[label]]
    if empty:
        others = f" (nor have {counted(len(empty) - 1, 'other')})" if empty[1:] else ""
        raise ValueError(
            f"{datasets[0].folder}/manifest.json: class {shown(empty[0])} has no sample to train on{others}; "
            "add samples or leave the class out, and build again"
        )


def shared_classes(found: Mapping[str, tuple[str, ...]], what: str = "") -> tuple[str, ...]:
    """Return the classes of several folders, from what each names; ValueError where they are not the same ones.

    Adopted folders have numbers for names, up to the largest label that each happens to have: those share the most
    that one has. A folder without labels has no say.
    """
    # The folder with the most classes: of numbers the others may have met fewer.
    first = max(found, key=lambda place: len(found[place]))
    for place, names in found.items():
        if names and names != found[first] and not (are_numbers(names) and are_numbers(found[first])):
            raise ValueError(
                f"{place}: names {counted(len(names), 'class')}{what}, {first} names {len(found[first])}, or in "
                "another order; datasets that are mixed must share their classes"
            )
    return found[first]


def are_numbers(names: Sequence[str]) -> bool:
    """Return whether classes have numbers for names, as those of adopted folders do."""
    return list(names) == [str(number) for number in range(len(names))]


def classes_of_labels(wanted: Sequence[str], found: Mapping[str, Mapping[str, tuple[str, ...]]]) -> dict[str, int]:
    """Return the number of classes of each further label that is wanted, from what each folder names.

    Not every folder need have every label: a sample without one is not trained on it. Raises ValueError where none has
    it, or two name other classes.
    """
    numbers = {}
    for label in wanted:
        places = {place: labels[label] for place, labels in found.items() if label in labels}
        if not places:
            there = _listed({name for labels in found.values() for name in labels})
            raise ValueError(
                f"{next(iter(found))}: has no label {shown(label)} (further labels: {there}); take it out of "
                f"data.labels, or build the shards from a table with the column label.{label}"
            )
        numbers[label] = len(shared_classes(places, f" of label {shown(label)}"))
    return numbers


def numbers_of_values(wanted: Sequence[str], found: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return how many numbers each value that is wanted has, from what each folder says.

    Not every folder need have every value: a sample without one is not trained on it. Raises ValueError where none has
    it, or two say other numbers.
    """
    numbers = {}
    for value in wanted:
        counts = {place: values[value] for place, values in found.items() if value in values}
        if not counts:
            there = _listed({name for values in found.values() for name in values})
            raise ValueError(
                f"{next(iter(found))}: has no value {shown(value)} (values: {there}); take it out of data.values, or "
                f"build the shards from a table with the column value.{value}"
            )
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} in {place}" for place, count in counts.items())
            raise ValueError(f"value {shown(value)} has {said} numbers; datasets that are mixed must have the same")
        numbers[value] = next(iter(counts.values()))
    return numbers


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
