"""The layout of one checkpoint on disk: its files, and the manifest by which it is complete and verified.

step_00000100/weight-00000-of-00002.safetensors       fp32 weights, buffers, frozen parameters
step_00000100/exp_avg-00000-of-00002.safetensors      first moments, under the names of their parameters
step_00000100/exp_avg_sq-00000-of-00002.safetensors   second moments
step_00000100/checkpoint.json                         written last
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash
from torch import Tensor

from data_shards.files import atomic, typed_json
from trainer.checkpoint.names import MANIFEST, problem, step_of
from trainer.checkpoint.tensor_file import FileRecord, TensorFile, examine
from trainer.optim.partitions import WEIGHT
from trainer.run_state import EngineState, RunState

VERSION = 1
_SHOWN = 5
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """The contents of a checkpoint besides its tensors."""

    state: RunState
    """The progress of the run."""
    engine: EngineState
    """Steps applied and loss scale."""
    identity: dict[str, Any]
    """What decides the order of the samples. A run with another identity cannot resume from here."""
    world_size: int
    """Ranks that wrote it; any number can read it."""
    files: dict[str, FileRecord]
    """Size and hash of every other file."""
    score: float | None = None
    """The score of these very weights, for keeping the best; None where they were not evaluated."""
    versions: dict[str, str] | None = None
    """The versions of the libraries that wrote it."""
    version: int = VERSION
    """The version of this layout."""


def file_name(kind: str, rank: int, world_size: int) -> str:
    """Return the name of the file in which a rank writes one kind of tensors."""
    return f"{kind}-{rank:05d}-of-{world_size:05d}.safetensors"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, with a hash of itself, so that it is on the disk when this returns."""
    fields = asdict(manifest)
    atomic.write(folder / MANIFEST, json.dumps({**fields, "xxh3": _digest(fields)}, indent=1))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a checkpoint; ValueError says how it is damaged."""
    path = folder / MANIFEST
    fields = typed_json.read_object(path)
    if fields.pop("xxh3", None) != _digest(fields):
        raise ValueError(f"{path}: its content does not match its hash")
    # Before the fields get types: another layout may have other fields, and would be called damaged.
    if fields.get("version") != VERSION:
        raise ValueError(f"{path}: version {fields.get('version')!r}, this release reads {VERSION}")
    try:
        return typed_json.typed(Manifest, fields)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


def damage(folder: Path, names: list[str], manifest: Manifest) -> list[str]:
    """Return a sentence for each of these files that is not what the manifest lists."""
    sentences = []
    for name in names:
        expected = manifest.files[name]
        try:
            found = examine(folder / name)
        except OSError as error:
            sentences.append(f"{folder / name}: {error.strerror}")
            continue
        if found.num_bytes != expected.num_bytes:
            sentences.append(f"{folder / name}: {found.num_bytes} bytes, expected {expected.num_bytes}")
        elif found != expected:
            sentences.append(f"{folder / name}: content does not match its hash")
    return sentences


def read_whole(folder: Path, prefix: str = "") -> Manifest:
    """Return the manifest of a checkpoint whose files, those of that prefix, are whole; ValueError if they are not."""
    if sentence := problem(folder):
        raise ValueError(sentence)
    manifest = read_manifest(folder)
    if sentences := damage(folder, [name for name in manifest.files if name.startswith(prefix)], manifest):
        raise ValueError("; ".join(sentences))
    return manifest


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return all weights and buffers of a checkpoint by name, for `load_state_dict`; ValueError if it is damaged."""
    manifest = read_whole(folder, f"{WEIGHT}-")
    files = [TensorFile(folder / name) for name in manifest.files if name.startswith(f"{WEIGHT}-")]
    return {name: tensor for file in files for name, tensor in file.read_all().items()}


def scores(checkpoints: Iterable[Path]) -> dict[int, float | None]:
    """Return by its step the score of every checkpoint whose manifest can be read; None where it was not evaluated."""
    found: dict[int, float | None] = {}
    for path in checkpoints:
        with suppress(ValueError):  # damaged, or deleted meanwhile
            found[step_of(path)] = read_manifest(path).score
    return found


def shapes(folder: Path, manifest: Manifest, kind: str = WEIGHT) -> dict[str, Shape]:
    """Return the shape of every tensor of a kind that a checkpoint has, by name."""
    files = [TensorFile(folder / name) for name in manifest.files if name.startswith(f"{kind}-")]
    return {name: file.shape(name) for file in files for name in file.names()}


def other_data(there: Mapping[str, object], here: Mapping[str, object]) -> str:
    """Return, in words, in what the data of a checkpoint's run differ from ours; nothing where they are alike."""
    found = [f"{key} was {there.get(key)!r}, is {value!r}" for key, value in here.items() if there.get(key) != value]
    return f"belongs to a run on other data ({'; '.join(found)})" if found else ""


def difference(there: Mapping[str, Shape], here: Mapping[str, Shape]) -> str:
    """Return, in words, in which tensors a checkpoint and a network differ; nothing where they are alike."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    listed = [f"{name}: {_shape(there.get(name))} there, {_shape(here.get(name))} here" for name in names[:_SHOWN]]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    total = len({**there, **here})
    return f"{len(names)} of {total} tensors differ ({'; '.join([*listed, *more])})" if names else ""


def _shape(shape: Shape | None) -> str:
    return "none" if shape is None else str(list(shape))


def _digest(fields: dict[str, Any]) -> str:
    # Sorted: the hash is of what was written, not of the order in which a reader or an editor keeps the keys.
    return xxhash.xxh3_64(json.dumps(fields, sort_keys=True).encode()).hexdigest()
