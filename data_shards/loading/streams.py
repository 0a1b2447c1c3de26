"""From the data section of a run's configuration to its loaders, its order and its data state.

    config, manifests   ->  datasets    what each folder serves, checked against the run
    datasets            ->  order       which sample fills which slot: equal on every rank, no shard is opened
                        ->  state       the identity of that order, under which alone a checkpoint resumes
                        ->  assembler   reader, decoders and the list of bad samples of this rank
    order, assembler    ->  loader      loader(step)

All but the last happens once, at a start; what does not fit is refused there, before the first step.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from data_shards.config import DataConfig
from data_shards.files.quoting import shown
from data_shards.format.annotations import OWN
from data_shards.format.extents import EXTENT_BYTES
from data_shards.format.manifest import Manifest, Split
from data_shards.loading.collate import Assembler, Source
from data_shards.loading.dataset import (
    Dataset,
    check_classes,
    check_inputs,
    classes_of_labels,
    numbers_of_values,
    served,
    shared_classes,
)
from data_shards.loading.loader.loader import Loader
from data_shards.loading.quarantine import Quarantine
from data_shards.loading.reader import Reader
from data_shards.loading.shard_folders import Places
from data_shards.order import random_numbers
from data_shards.order.mixture import MixedOrder
from data_shards.order.sample_order import EvalOrder, Order, TrainOrder
from data_shards.order.state import DataState, datasets_hash
from data_shards.storage.config import DatasetConfig

TRAIN = "train"
EVALUATED = ("test", "val", "validation", "valid", "dev")
"""Splits that are evaluated, the first one that there is, where the configuration names none."""


def label_names(config: DataConfig, places: Places | None = None) -> tuple[str, ...]:
    """Return the class names of the shards of training; ValueError where they do not share them."""
    places = places or Places(config)
    return shared_classes(
        # Each folder once: two datasets of a mixture may read different inputs of one folder.
        {at: places.at(at).manifest().label_names for at in dict.fromkeys(_locations(config).values())}
    )


def all_label_names(config: DataConfig, places: Places) -> dict[str, tuple[str, ...]]:
    """Return the class names of every label of the shards of training, "" for the sample's own."""
    found = {"": label_names(config, places)}
    for at in dict.fromkeys(_locations(config).values()):
        for name, classes in places.at(at).manifest().named_labels.items():
            found.setdefault(name, classes)
    return found


def with_several_labels(config: DataConfig, places: Places | None = None) -> list[str]:
    """Return the places of training whose samples have several labels: more labels than samples are counted there."""
    places = places or Places(config)
    found = {at: places.at(at).manifest().splits.values() for at in _locations(config).values()}
    return [place for place, splits in found.items() if any(sum(s.label_counts) > s.num_samples for s in splits)]


def named_classes(config: DataConfig, places: Places | None = None) -> dict[str, int]:
    """Return how many classes each further label has that the config asks for; ValueError where one is not there."""
    places = places or Places(config)
    found = {at: places.at(at).manifest().named_labels for at in _locations(config).values()}
    return classes_of_labels(config.labels, found)


def num_values(config: DataConfig, places: Places | None = None) -> dict[str, int]:
    """Return how many numbers each value has that the config asks for; ValueError where one is not there."""
    places = places or Places(config)
    found = {at: places.at(at).manifest().values for at in _locations(config).values()}
    return numbers_of_values(config.values, found)


def train_datasets(config: DataConfig, places: Places | None = None) -> tuple[Dataset, ...]:
    """Return what training reads, checked; ValueError says what does not fit."""
    places = places or Places(config)
    parts = config.datasets or {"": DatasetConfig(config.shards)}
    datasets = tuple(
        served(places.at(part.shards), TRAIN, config, name=name, weight=part.weight, only=part.inputs)
        # By name: the number of a dataset is part of the order, and its place in the file must not be.
        for name, part in sorted(parts.items())
    )
    check_inputs(datasets, TRAIN, config)
    check_classes(datasets)
    return datasets


def train_order(config: DataConfig, seed: int, global_batch: int) -> TrainOrder | MixedOrder:
    """Return the order in which a run trains; the same on every rank."""
    return _order(train_datasets(config), config, seed, global_batch)


def train_loader(
    config: DataConfig,
    *,
    seed: int,
    global_batch: int,
    rank: int = 0,
    world_size: int = 1,
    pinned: bool = False,
    quarantine: Path | None = None,
    places: Places | None = None,
) -> Loader:
    """Return this rank's loader of training batches; `places` is what is known of its shard folders.

    Bad samples are replaced and listed in the file `quarantine`; without one, the first is an error.
    """
    # A pair that lay on two ranks could not be mixed: neither has the other's image.
    if config.mixup is not None and global_batch % (2 * world_size):
        raise ValueError(
            f"data.mixup mixes pairs of samples, so every rank needs an even number of them: a global batch of "
            f"{global_batch} on {world_size} ranks is not a multiple of {2 * world_size}; change train.global_batch "
            "or the number of ranks"
        )
    places = places or Places(config)
    datasets = train_datasets(config, places)
    order = _order(datasets, config, seed, global_batch)
    assembler = _assembler(datasets, order, config, seed, world_size, pinned, quarantine, places)
    is_remote = any(dataset.folder.is_remote for dataset in datasets)
    # A local shard is near already; asking for it would only open it twice.
    fetch_ahead = config.remote.fetch_ahead_batches if is_remote else 0
    return Loader(assembler, order, rank=rank, world_size=world_size, fetch_ahead_batches=fetch_ahead)


def eval_split(config: DataConfig, places: Places | None = None) -> str:
    """Return the split that is evaluated; ValueError says why there is none."""
    if not config.shards:
        raise ValueError("data.shards is not set, and the datasets that are mixed are trained on only")
    splits = (places or Places(config)).at(config.shards).manifest().splits
    there = ", ".join(map(repr, splits)) or "none"
    if config.eval_split:
        if config.eval_split not in splits:
            raise ValueError(f"{config.shards}: has no split {shown(config.eval_split)}, only {there}")
        return config.eval_split
    # In the order of EVALUATED: where there are a test and a val split, the answer must not depend on the manifest.
    found = next((name for wanted in EVALUATED for name in splits if name.lower() == wanted), None)
    if found is None:
        raise ValueError(
            f"{config.shards}: has the splits {there}, and none of {', '.join(EVALUATED)}; name the one to "
            "evaluate by data.eval_split, or for `perceiver eval` by --split"
        )
    return found


def eval_loader(
    config: DataConfig,
    split: str,
    *,
    global_batch: int,
    rank: int = 0,
    world_size: int = 1,
    pinned: bool = False,
    quarantine: Path | None = None,
    places: Places | None = None,
) -> tuple[Loader, int]:
    """Return this rank's loader of one pass over a split, and the number of its steps.

    With data.clips each batch comes for every clip in a row.

    A bad sample is a slot of weight 0, listed in the file `quarantine`; without one it is an error.
    """
    config = config.of_evaluation()
    places = places or Places(config)
    dataset = served(places.at(config.shards), split, config)
    check_inputs((dataset,), split, config)
    order = EvalOrder(dataset.split, global_batch, config.num_clips)
    assembler = _assembler((dataset,), order, config, None, world_size, pinned, quarantine, places)
    last_step = order.steps_per_epoch - 1
    return Loader(assembler, order, rank=rank, world_size=world_size, last_step=last_step), order.steps_per_epoch


def data_state(
    config: DataConfig,
    *,
    seed: int,
    global_batch: int,
    step: int = 0,
    split: str = TRAIN,
    places: Places | None = None,
) -> DataState:
    """Return the identity that decides the samples of every step. A checkpoint stores it, and resumes only under it."""
    places = places or Places(config)
    prints = {name: _identity(places.at(at).manifest(), config, split) for name, at in _locations(config).items()}
    parts = [(name, part.weight, part.inputs) for name, part in config.datasets.items()]
    # Sorted by name: the order of the datasets in a file is no part of the identity.
    manifest = prints[""] if not parts else hashlib.sha256(repr(sorted(prints.items())).encode()).hexdigest()
    return DataState(
        manifest,
        seed,
        global_batch,
        config.lanes,
        config.window,
        datasets=datasets_hash(parts) if parts else "",
        step=step,
    )


def _identity(shards: Manifest, config: DataConfig, split: str) -> str:
    """Return a hash of a split and of what is taken of it."""
    found = shards.split(split).fingerprint
    # With the members that each required input reads: other members are in other samples.
    required = [f"{name}={','.join(patterns)}" for name, patterns in config.required_members]
    taken = (*required, *([] if shards.records == OWN else [str(shards.records)]))
    return hashlib.sha256(" ".join((found, *taken)).encode()).hexdigest() if taken else found


def _locations(config: DataConfig) -> dict[str, str]:
    """Return where the datasets of training lie, by name."""
    return {name: part.shards for name, part in config.datasets.items()} or {"": config.shards}


def _order(datasets: Sequence[Dataset], config: DataConfig, seed: int, global_batch: int) -> TrainOrder | MixedOrder:
    if not config.datasets:
        return TrainOrder(datasets[0].split, seed, global_batch, config.lanes, config.window)
    splits, weights = [dataset.split for dataset in datasets], [dataset.weight for dataset in datasets]
    return MixedOrder(splits, weights, seed, global_batch, config.lanes, config.window)


def _assembler(
    datasets: Sequence[Dataset],
    order: Order,
    config: DataConfig,
    seed: int | None,
    world_size: int,
    pinned: bool,
    quarantine: Path | None,
    places: Places,
) -> Assembler:
    sources = [
        Source(
            dataset.name,
            dataset.split_name,
            Reader(dataset.folder, dataset.split, live_bytes=live_bytes(dataset.split, order, world_size)),
            dataset.intake,
            dataset.num_left_out,
            # By the fingerprint as well: two datasets of a mixture must not draw the same numbers.
            None if seed is None else random_numbers.key("samples", dataset.split.fingerprint, seed),
        )
        for dataset in datasets
    ]
    bad = Quarantine(quarantine, config.max_bad_rate, _num_samples(datasets)) if quarantine else None
    # For its refusal alone: an evaluation may read another folder than training.
    classes_of_labels(config.labels, {str(dataset.folder): dataset.named_labels for dataset in datasets})
    values = numbers_of_values(config.values, {str(dataset.folder): dataset.values for dataset in datasets})
    named = {str(dataset.folder): dataset.label_names for dataset in datasets}
    if config.datasets:
        # What is evaluated alone has the classes of what is trained on.
        named["data.datasets"] = label_names(config, places)
    return Assembler(sources, config, len(shared_classes(named)), values, bad, pinned)


def live_bytes(split: Split, order: Order, world_size: int) -> int:
    """Return the bytes of the extents that this rank's lanes have begun and not finished, with one to spare each."""
    sample_bytes = split.shards.num_bytes.sum() / split.num_samples
    # Rounded up: where the ranks do not divide the lanes, two ranks share one and both hold its extents.
    return -(-order.lanes // world_size) * (int(order.window * sample_bytes) + 3 * EXTENT_BYTES)


def _num_samples(datasets: Sequence[Dataset]) -> dict[tuple[str, str, str], int]:
    """Return the samples by (split, source, input), with those of a source altogether under input ""."""
    counts: dict[tuple[str, str, str], int] = {}
    for dataset in datasets:
        place = dataset.split_name, dataset.name
        counts[*place, ""] = dataset.split.num_samples
        for name, section in dataset.config.ordered_inputs.items():
            counts[*place, name] = int(dataset.split.shards.num_samples_with(section.patterns).sum())
    return counts
