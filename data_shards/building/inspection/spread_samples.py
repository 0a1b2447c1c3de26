"""Some samples of a split, at equal distances over all its shards."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_shards.format import manifest
from data_shards.storage.local_folder import LocalFolder

Members = Mapping[str, bytes]
"""The bytes of a sample's members by extension."""


def spread(folder: Path, shards: manifest.Shards, num_samples: int) -> list[tuple[str, Members]]:
    """Return (key, members) of samples at equal distances over all the shards."""
    total = sum(shard.num_samples for shard in shards)
    # Over all shards: the first few would say nothing of the rest.
    chosen = np.unique(np.linspace(0, total - 1, min(num_samples, total)).astype(int))
    starts = np.cumsum([0, *(shard.num_samples for shard in shards)])
    samples, place = [], LocalFolder(folder)
    for number in chosen.tolist():
        shard = int(np.searchsorted(starts, number, side="right")) - 1
        samples.append(_read(place, shards[shard], number - int(starts[shard])))
    return samples


def _read(place: LocalFolder, entry: manifest.ShardEntry, sample: int) -> tuple[str, Members]:
    try:
        index = place.index(entry)
        members: dict[str, bytes] = {}
        with place.open(entry) as file:
            for extension, (offset, length) in index.members(sample).items():
                file.seek(offset)
                members[extension] = file.read(length)
    except OSError as error:
        # verify names every file that is bad, where this one ends at the first.
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); run `perceiver data verify`") from error
    return index.keys[sample], members
