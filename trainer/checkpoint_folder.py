"""One checkpoint on the disk: its files, the manifest that makes it complete, and whether it is what it says.

step_00000100/weight-00000-of-00002.safetensors       fp32 weights, buffers, frozen parameters
step_00000100/exp_avg-00000-of-00002.safetensors      first moments, under the names of their parameters
step_00000100/exp_avg_sq-00000-of-00002.safetensors   second moments
step_00000100/checkpoint.json                         written last
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash
from torch import Tensor

from trainer.partitions import WEIGHT
from trainer.run_state import RunState
from trainer.tensor_file import FileRecord, TensorFile, examine

MANIFEST = "checkpoint.json"
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds beside its tensors."""

    state: RunState
    """Where the run was."""
    engine: dict[str, Any]
    """Steps applied and loss scale."""
    identity: dict[str, Any]
    """What decides the order of the samples; another identity cannot go on from here."""
    world_size: int
    """Ranks that wrote it; any number can read it."""
    files: dict[str, FileRecord]
    """Size and hash of every other file."""
    score: float | None = None
    """Of the newest evaluation, for keeping the best."""
    versions: dict[str, str] | None = None
    """Of the libraries that wrote it."""
    version: int = VERSION
    """Of this layout."""


def name_of(step: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"step_{step:08d}"


def file_name(kind: str, rank: int, world_size: int) -> str:
    """Return the name of the file in which a rank writes one kind of tensors."""
    return f"{kind}-{rank:05d}-of-{world_size:05d}.safetensors"


def complete(folder: Path) -> list[Path]:
    """Return the checkpoints of a run that were committed, oldest first."""
    return sorted(path for path in folder.glob("step_*") if (path / MANIFEST).is_file())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, with a hash of itself, so that it is on the disk when this returns."""
    fields = {**asdict(manifest), "state": manifest.state.to_json()}
    with (folder / MANIFEST).open("x") as file:
        json.dump({**fields, "xxh3": _digest(fields)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a checkpoint; ValueError says how it is damaged."""
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_text())
        if fields.pop("xxh3") != _digest(fields):
            raise ValueError(f"{path}: its content does not match its hash")
        if fields["version"] != VERSION:
            raise ValueError(f"{path}: version {fields['version']}, this release reads {VERSION}")
        files = {name: FileRecord(**record) for name, record in fields["files"].items()}
        return Manifest(**{**fields, "state": RunState.from_json(fields["state"]), "files": files})
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return all weights and buffers of a checkpoint by name, for `load_state_dict`; ValueError if it is damaged."""
    manifest = read_manifest(folder)
    names = [name for name in manifest.files if name.startswith(f"{WEIGHT}-")]
    if sentences := damage(folder, names, manifest):
        raise ValueError("; ".join(sentences))
    files = [TensorFile(folder / name) for name in names]
    return {name: file.read(name).view(file.shape(name)) for file in files for name in file.names()}


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(fields: dict[str, Any]) -> str:
    return xxhash.xxh3_64(json.dumps(fields, sort_keys=True).encode()).hexdigest()
