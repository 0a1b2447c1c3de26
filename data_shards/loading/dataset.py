"""A split of a shard folder, found fit to serve a run."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data_shards.config import DataConfig
from data_shards.files.quoting import shown
from data_shards.format.manifest import Split
from data_shards.loading.admission import Intake
from data_shards.loading.shard_folders import Place


@dataclass(frozen=True)
class Dataset:
    """What a loader reads from; a run that mixes has several."""

    name: str
    """Names it in the quarantine list and in messages; empty where it is the only one."""
    folder: Place
    split_name: str
    split: Split
    label_names: tuple[str, ...]
    named_labels: Mapping[str, tuple[str, ...]]
    """Class names of each further label by its name."""
    intake: Intake
    """The intake of its samples, with only the modalities that are taken from this dataset."""
    weight: float = 1.0
    num_left_out: int = 0
    """Samples of the split that lack what data.require names."""

    @property
    def config(self) -> DataConfig:
        """The run's configuration, with the modalities that are taken from this dataset."""
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

    `only` names the modalities that are taken from it; where it is empty, all are that it has.
    """
    shards = folder.manifest()
    split = shards.split(split_name)
    there = {kind for kind, count in split.shards.modalities.items() if count}
    for wanted in only:
        if wanted not in there or wanted not in config.modalities():
            raise ValueError(
                f"data.datasets.{name}.modalities has {shown(wanted)}, which is not in the shards ({_listed(there)}) "
                f"or not in the run ({_listed(config.modalities())}); leave it out"
            )
    taken = set(only) or there & config.modalities().keys()
    num_samples = split.num_samples
    split = folder.served(split_name, config.require)
    return Dataset(
        name,
        folder,
        split_name,
        split,
        shards.label_names,
        shards.named_labels,
        Intake.of(shards, config.only(taken)),
        weight,
        num_samples - split.num_samples,
    )


def check_modalities(datasets: Sequence[Dataset], split_name: str, config: DataConfig) -> None:
    """Raise ValueError for a modality of the run that no dataset serves."""
    taken = {kind for dataset in datasets for kind in dataset.config.modalities()}
    for modality in config.modalities():
        if modality not in taken:
            there = {kind for dataset in datasets for kind in dataset.split.shards.modalities}
            raise ValueError(
                f"{datasets[0].folder}: no sample of split {shown(split_name)} has {modality}, only {_listed(there)}; "
                f"set data.{modality}=null, or build the shards with {modality}"
            )


def check_classes(datasets: Sequence[Dataset]) -> None:
    """Raise ValueError where the datasets name different classes, or a class has no sample to train on."""
    label_names = shared_classes({str(dataset.folder): dataset.label_names for dataset in datasets})
    counts = sum((Counter(dict(enumerate(dataset.split.label_counts))) for dataset in datasets), Counter[int]())
    empty = [name for label, name in enumerate(label_names) if not counts[label]]
    if empty:
        others = f" (nor have {len(empty) - 1} others)" if empty[1:] else ""
        raise ValueError(
            f"{datasets[0].folder}/manifest.json: class {shown(empty[0])} has no sample to train on{others}; "
            "add samples or leave the class out, and build again"
        )


def shared_classes(found: Mapping[str, tuple[str, ...]], what: str = "") -> tuple[str, ...]:
    """Return the classes of several folders, from what each names; ValueError where they are not the same ones.

    Adopted folders have numbers for names, up to the largest label that each happens to have: those share the most
    that one has. A folder without labels has no say.
    """
    first = max(found, key=lambda place: len(found[place]))
    for place, names in found.items():
        if names and names != found[first] and not (_are_numbers(names) and _are_numbers(found[first])):
            raise ValueError(
                f"{place}: names {len(names)} classes{what}, {first} names {len(found[first])}, or in another order; "
                "datasets that are mixed must share their classes"
            )
    return found[first]


def _are_numbers(names: tuple[str, ...]) -> bool:
    return names == tuple(str(number) for number in range(len(names)))


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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
