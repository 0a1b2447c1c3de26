"""A split without the samples that lack an input in data.require, as if only the others had been packed."""

from dataclasses import replace

import numpy as np

from data_shards.format.manifest import Required, Split
from data_shards.format.members import fitting
from data_shards.format.tar_index import TarIndex
from data_shards.storage.local_folder import ShardFolder


def required(folder: ShardFolder, split: Split, wanted: Required) -> Split:
    """Return the split with only the samples that have all these inputs; ValueError where none has."""
    counts = split.shards.num_samples_with(*(patterns for _, patterns in wanted))
    # All have it: the split is the same one, and so is its order.
    if (counts == split.shards.num_samples).all():
        return split
    # An order of no samples has no first step.
    if not counts.any():
        names = " and ".join(sorted(name for name, _ in wanted))
        raise ValueError(f"{folder}: data.require leaves out all samples, none has {names}; name less")
    return replace(split, shards=split.shards.with_samples(counts), required=wanted)


def has_all(index: TarIndex, wanted: Required) -> np.ndarray:
    """Return for each sample of a tar whether it has all the inputs."""
    # Each pattern is compared with each suffix of the tar once, not with each of its members.
    members = np.searchsorted(index.starts, np.arange(len(index.offsets)), side="right") - 1
    good = np.ones(index.num_samples, bool)
    for _, patterns in wanted:
        fits = np.array([any(fitting(patterns, [suffix])) for suffix in index.extensions])[index.extension_ids]
        good &= np.bincount(members[fits], minlength=index.num_samples) > 0
    return good
