"""The assignment of rows to shards: a pure function of the rows and a seed.

    samples by bytes, largest first     9 8 | 7 5 | 4 4 | 2 1      rounds of as many as there are shards
    shard 0                             9     5     4     1        19 bytes in 4 samples
    shard 1                               8   7       4   2        21 bytes in 4 samples

Which shard gets the larger one of a round is random, so the shard of a sample is, too.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_shards.building.raw_sample import Row


@dataclass(frozen=True)
class ShardPlan:
    """The rows of one shard, in their order."""

    name: str
    """Path of the tar relative to the folder, such as "train/000000.tar"."""
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Plan:
    """The shards of a build."""

    shards: tuple[ShardPlan, ...]
    fingerprint: str
    """Hash of rows, file sizes, seed and samples per shard. An interrupted build resumes only under the same one."""


def plan(rows: Sequence[Row], *, seed: int, samples_per_shard: int) -> Plan:
    """Return shards whose sample counts differ by one at most within a split, balanced in bytes, shuffled by seed."""
    sizes = [sum(content.num_bytes for content in row.members) for row in rows]
    digest = hashlib.sha256(f"{seed} {samples_per_shard}".encode())
    of_split: Mapping[str, list[int]] = defaultdict(list)
    for number, (row, num_bytes) in enumerate(zip(rows, sizes, strict=True)):
        # The size stands for the content of a file: a hash of it would read the whole data set before the build.
        digest.update(f"{row} {num_bytes}\n".encode())
        of_split[row.split].append(number)
    shards = [
        ShardPlan(f"{split}/{shard:06d}.tar", tuple(rows[numbers[place]] for place in places))
        for split, numbers in sorted(of_split.items())
        for shard, places in enumerate(_deal([sizes[number] for number in numbers], split, seed, samples_per_shard))
    ]
    return Plan(tuple(shards), digest.hexdigest())


def _deal(sizes: Sequence[int], split: str, seed: int, samples_per_shard: int) -> list[NDArray[np.int64]]:
    """Return the places in `sizes` that each shard gets.

    The samples are dealt like cards, the largest first: each round gives every shard one sample of about the same
    size, in random order. So bytes are balanced, and which shard a sample comes to is random.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed} {split}".encode()).digest()[:16])
    rng = np.random.Generator(np.random.Philox(key=key))
    num_shards = -(-len(sizes) // samples_per_shard)
    shuffled = rng.permutation(len(sizes))
    # Shuffled before, and sorted in a stable way: among samples of equal size, such as drawn ones, the order is random.
    largest_first = shuffled[np.argsort(-np.asarray(sizes)[shuffled], kind="stable")]
    hands: list[list[int]] = [[] for _ in range(num_shards)]
    for start in range(0, len(sizes), num_shards):
        dealt = largest_first[start : start + num_shards]
        for shard, place in zip(rng.permutation(num_shards), dealt, strict=False):
            hands[shard].append(int(place))
    # Largest first until here: within a shard the order must not tell the size.
    return [rng.permutation(np.asarray(hand, np.int64)) for hand in hands]
