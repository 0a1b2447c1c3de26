"""Real checkpoints of any tensors, made without a training."""

import json
from pathlib import Path

import torch
import xxhash

from trainer.checkpoint.layout import file_name
from trainer.checkpoint.manifest import Manifest, write_manifest
from trainer.checkpoint.names import MANIFEST, name_of
from trainer.checkpoint.tensor_file import write
from trainer.ema_config import EMA
from trainer.optim.partitions import KINDS
from trainer.run_state import Averaged, EngineState, RunState


def save(
    checkpoints: Path,
    step: int,
    weights: dict[str, torch.Tensor],
    *,
    identity: dict[str, object] | None = None,
    score: float | None = None,
    state: RunState | None = None,
    average: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a checkpoint, if so with an average of one update at a decay of 0.5, and return its folder."""
    folder = checkpoints / name_of(step)
    folder.mkdir(parents=True)
    files = {file_name(kind, 0, 1): write(folder / file_name(kind, 0, 1), weights) for kind in KINDS}
    if average:
        files[file_name(EMA, 0, 1)] = write(folder / file_name(EMA, 0, 1), average)
    progress = EngineState(step, float(step), {}, Averaged(0.5, 1) if average else None)
    write_manifest(folder, Manifest(state or RunState(step=step), progress, identity or {}, 1, files, score))
    return folder


def rewrite(checkpoint: Path, key: str, value: object) -> None:
    """Write another value into a manifest, with the hash that belongs to it."""
    path = checkpoint / MANIFEST
    fields = json.loads(path.read_text())
    fields.pop("xxh3")
    *parents, last = key.split(".")
    inner = fields
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    digest = xxhash.xxh3_64(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**fields, "xxh3": digest}))
