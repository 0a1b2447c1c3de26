"""The layout of one checkpoint on disk: its files, and the manifest by which it is complete and verified.

step_00000100/weight-00000-of-00002.safetensors       fp32 weights, buffers, frozen parameters
step_00000100/exp_avg-00000-of-00002.safetensors      first moments, under the names of their parameters
step_00000100/exp_avg_sq-00000-of-00002.safetensors   second moments
step_00000100/ema-00000-of-00002.safetensors          moving average of the weights, where the run keeps one
step_00000100/checkpoint.json                         written last
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from data_shards.order import state
from trainer.checkpoint.manifest import Manifest, read_manifest, read_whole
from trainer.checkpoint.names import step_of
from trainer.checkpoint.tensor_file import TensorFile
from trainer.optim.partitions import WEIGHT

_SHOWN = 5
Shape = tuple[int, ...]


def file_name(kind: str, rank: int, world_size: int) -> str:
    """Return the name of the file in which a rank writes one kind of tensors."""
    return f"{kind}-{rank:05d}-of-{world_size:05d}.safetensors"


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
    # Every shape may fit although the data are others, and the next batch would have other samples.
    found = state.difference(there, here)
    return f"belongs to a run on other data ({found})" if found else ""


def difference(there: Mapping[str, Shape], here: Mapping[str, Shape]) -> str:
    """Return, in words, in which tensors a checkpoint and a network differ; nothing where they are alike."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    listed = [f"{name}: {_shape(there.get(name))} there, {_shape(here.get(name))} here" for name in names[:_SHOWN]]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    total = len({**there, **here})
    return f"{len(names)} of {total} tensors differ ({'; '.join([*listed, *more])})" if names else ""


def _shape(shape: Shape | None) -> str:
    return "none" if shape is None else str(list(shape))
