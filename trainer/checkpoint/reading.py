"""Reading a checkpoint on all ranks: one rank checks each file, and all ranks receive the result.

Rank 0 reads the manifest. Of the other files, in the order of their names, rank r verifies and opens every
world_size-th from the r-th on.

    files, sorted      0   1   2   3   4   5   6        three ranks; each file is read once,
    read by rank       0   1   2   0   1   2   0        whatever the number of ranks

If every rank opened every file, 1 024 ranks would make 400 000 opens of one checkpoint.
"""

from pathlib import Path

import torch
from torch import Tensor

from trainer.checkpoint import names
from trainer.checkpoint.manifest import Manifest, damage, read_manifest
from trainer.checkpoint.tensor_file import TensorFile
from trainer.distributed.world import World
from trainer.ema_config import EMA
from trainer.optim.average import corrected
from trainer.optim.partitions import WEIGHT


def verified(path: Path, world: World, prefix: str = "") -> Manifest:
    """Return the manifest of a checkpoint whose files, those of that prefix, are whole; each is hashed by one rank.

    Collective. ValueError on all ranks if they are not.
    """
    manifest = world.from_first(lambda: _manifest(path))

    def verify() -> None:
        if sentences := damage(path, _share(manifest, world, prefix), manifest):
            raise ValueError("; ".join(sentences))

    world.from_each(verify)
    return manifest


def opened(path: Path, manifest: Manifest, world: World, prefix: str = "") -> dict[str, TensorFile]:
    """Return the files of that prefix by their names; each header is read by one rank. Collective.

    ValueError on all ranks where one is not a file of tensors.
    """
    share = _share(manifest, world, prefix)
    parts = world.from_each(lambda: {name: TensorFile(path / name).header for name in share})
    headers = {name: header for part in parts for name, header in part.items()}
    return {name: TensorFile(path / name, headers[name]) for name in manifest.files if name in headers}


def weights(path: Path, world: World) -> dict[str, Tensor]:
    """Return all weights and buffers of a checkpoint by name; each file is read by one rank. Collective.

    ValueError on all ranks where one is damaged.
    """
    return _tensors(path, world, WEIGHT)[1]


def average(path: Path, world: World) -> dict[str, Tensor] | None:
    """Return the same with the moving average for what was trained; None where there is none. Collective."""
    manifest, averages = _tensors(path, world, EMA)
    how = manifest.engine.average
    if how is None or not how.updates:
        return None
    # Buffers and frozen parameters are their own average.
    return weights(path, world) | {name: corrected(tensor, how) for name, tensor in averages.items()}


def _tensors(path: Path, world: World, kind: str) -> tuple[Manifest, dict[str, Tensor]]:
    """Return all tensors of a kind by name."""
    # Without the other kinds: the moments are two thirds of the bytes.
    prefix = f"{kind}-"
    manifest = verified(path, world, prefix)
    files = opened(path, manifest, world, prefix)
    share = _share(manifest, world, prefix)
    tensors: dict[str, Tensor] = {}

    def read() -> None:
        tensors.update((tensor, value) for name in share for tensor, value in files[name].read_all().items())

    world.from_each(read)
    # The order of `_share`: file n was read by rank n modulo the number of ranks.
    for number, name in enumerate(sorted(files)):
        for tensor in files[name].names():
            value = tensors.setdefault(tensor, files[name].empty(tensor))
            # As bytes: not every backend knows every type.
            world.spread(value.view(-1).view(torch.uint8), number % world.world_size)
    return manifest, {tensor: tensors[tensor] for file in files.values() for tensor in file.names()}


def _manifest(path: Path) -> Manifest:
    if problem := names.problem(path):
        raise ValueError(problem)
    return read_manifest(path)


def _share(manifest: Manifest, world: World, prefix: str) -> list[str]:
    """Return the files that this rank checks."""
    return sorted(name for name in manifest.files if name.startswith(prefix))[world.rank :: world.world_size]
