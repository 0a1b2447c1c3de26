"""A split without the samples that lack a modality which data.require names: as if the others alone had been packed."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from data_shards.format.manifest import Split
from data_shards.format.members import modality_of
from data_shards.format.tar_index import TarIndex
from data_shards.storage.local_folder import ShardFolder


def required(folder: ShardFolder, split: Split, modalities: Collection[str]) -> Split:
    """Return the split with only the samples that have all these modalities; ValueError where none has."""
    wanted = frozenset(modalities)
    counts = _counts(folder, split, wanted)
    if (counts == split.shards.num_samples).all():
        return split
    if not counts.any():
        raise ValueError(
            f"{folder}: data.require leaves out all samples, none has {' and '.join(sorted(wanted))}; name less"
        )
    return replace(split, shards=split.shards.with_samples(counts), required=wanted)


def has_all(index: TarIndex, wanted: frozenset[str]) -> np.ndarray:
    """Return for each sample of a tar whether it has all the modalities."""
    members = np.searchsorted(index.starts, np.arange(len(index.offsets)), side="right") - 1
    kinds = [modality_of(extension) for extension in index.extensions]
    good = np.ones(index.num_samples, bool)
    for modality in wanted:
        of_kind = np.array([kind == modality for kind in kinds])[index.extension_ids]
        good &= np.bincount(members[of_kind], minlength=index.num_samples) > 0
    return good


def _counts(folder: ShardFolder, split: Split, wanted: frozenset[str]) -> np.ndarray:
    """Return how many samples of each shard have all the modalities, from its index where the manifest cannot say."""
    counts = split.shards.num_samples.copy()
    num_missing = np.zeros(len(counts), np.int64)
    for modality in wanted:
        having = split.shards.num_samples_with(modality)
        num_missing += having < split.shards.num_samples
        counts = np.minimum(counts, having)
    # Where one modality alone is missing, those that have it are those that have all.
    for shard in np.flatnonzero((num_missing > 1) & (counts > 0)).tolist():
        counts[shard] = has_all(folder.index(split.shards[shard]), wanted).sum()
    return counts
