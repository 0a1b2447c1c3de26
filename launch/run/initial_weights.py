"""The weights from which a run starts, kept in its folder: what they came from may change or go while it trains.

RUN/initial_weights.safetensors   what the network takes, under its names
RUN/initial_weights.json          where it came from, its hash, and what was resized, initialised at random or not used
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.network import network_config
from configs.run import RunConfig, load
from data_shards.files import atomic, typed_json
from data_shards.files.display import printable
from launch.lifecycle.run_folder import RunFolder, as_typed
from model.config.initial_weights import InitialWeightsConfig
from model.config.perceiver import PerceiverConfig
from model.custom import new_network
from model.network import AnyNetwork
from model.transfer import table_grids, transfer
from trainer.checkpoint import tensor_file
from trainer.checkpoint.choice import NEWEST, read_weights
from trainer.checkpoint.manifest import FileRecord, examine
from trainer.checkpoint.tensor_file import TensorFile
from trainer.distributed.world import World
from trainer.ema_config import TRAINED

_SHOWN = 8


@dataclass(frozen=True)
class Record:
    """What became of the tensors of a source."""

    source: str
    """As the configuration names it."""
    step: int | None
    """The step of the run's checkpoint that was taken; None of a file, or of a folder without steps."""
    weights: str
    """Which weights of that step: "trained", or "ema" for their moving average."""
    num_bytes: int
    """Size of the file that keeps what was taken."""
    xxh3: str
    """XXH3-64 of its bytes, hexadecimal."""
    taken: tuple[str, ...]
    """Tensors that are those of the source to the bit."""
    resized: tuple[str, ...]
    """Tables with interpolated, left out or additional rows."""
    drawn: dict[str, str]
    """Tensors that were initialised at random, with the reason."""
    unused: tuple[str, ...]
    """Tensors of the source that nothing took."""


def keep(config: RunConfig, folder: RunFolder) -> None:
    """Write the initial weights of a run into its folder, and report on each tensor; ValueError if none fits."""
    # A run that has not begun may be given another source, or none.
    for path in (folder.initial_weights_path, folder.initial_weights_record_path):
        path.unlink(missing_ok=True)
    wanted = config.initial_weights
    if not wanted.source:
        return
    source = _read(wanted)
    grids = table_grids(_empty(source.network)) if source.network else {}
    # With the seed of the run: what no source fills is what a start without one would have drawn.
    network = new_network(config.model, seed=config.seed)
    try:
        found = transfer(network, source.tensors, grids, wanted)
    except ValueError as error:
        raise ValueError(f"{wanted.source}: {error}") from error
    # Under the names and shapes of this network: every later start loads it without the rules, and without the source.
    written = tensor_file.write(folder.initial_weights_path, found.weights)
    record = Record(
        wanted.source,
        source.step,
        source.weights,
        written.num_bytes,
        written.xxh3,
        tuple(sorted(found.weights.keys() - set(found.resized))),
        found.resized,
        found.drawn,
        found.unused,
    )
    atomic.write(folder.initial_weights_record_path, json.dumps(asdict(record), indent=1) + "\n")
    at = "" if source.step is None else f", step {source.step}"
    at += f", {source.weights} weights" if source.weights != TRAINED else ""
    sentences = [
        f"note: starts from {len(found.weights)} of {len(found.weights) + len(found.drawn)} tensors of "
        f"{as_typed(Path(wanted.source))}{at}; {folder.initial_weights_record_path.name} has the list",
        *_line("resized", found.resized),
        *_line("initialised at random", [f"{name} ({why})" for name, why in found.drawn.items()]),
        *_line("not used", found.unused),
    ]
    sys.stderr.write("\n".join(sentences) + "\n")


def take(network: nn.Module, folder: RunFolder) -> None:
    """Load the initial weights that a run's folder keeps; ValueError where they are gone or are not what was kept."""
    record = typed_json.read(Record, folder.initial_weights_record_path)
    is_there = folder.initial_weights_path.is_file()
    if not is_there or examine(folder.initial_weights_path) != FileRecord(record.num_bytes, record.xxh3):
        raise ValueError(
            f"{folder.initial_weights_path}: {'is not' if is_there else 'is gone, and was'} the file that this run was "
            "made with; make the run again in another folder"
        )
    # Not strict: what the source lacked is there already, drawn from the seed of the run.
    network.load_state_dict(TensorFile(folder.initial_weights_path).read_all(), strict=False)


@dataclass(frozen=True)
class _Source:
    """What weights are taken from."""

    tensors: Mapping[str, Tensor]
    network: PerceiverConfig | None = None
    """None of a file, which does not say it."""
    step: int | None = None
    weights: str = TRAINED


def _read(wanted: InitialWeightsConfig) -> _Source:
    source = wanted.source
    path, which = _parts(source)
    weights_path = path if path.is_file() else path / "model.safetensors"
    if weights_path.is_file():
        if wanted.weights:
            raise ValueError(
                f"initial_weights.weights={wanted.weights}: {source} has the weights of one network alone; leave it out"
            )
        network = None if path.is_file() else network_config(path / "config.yaml")
        return _Source(TensorFile(weights_path).read_all(), network)
    folder = RunFolder(path.resolve())
    if not folder.exists:
        raise ValueError(
            f"initial_weights.source={source}: is no run, no folder with a model.safetensors, and no file; a "
            "checkpoint of a run is RUN@best or RUN@STEP, and `perceiver import` makes a folder of a network of "
            "another library"
        )
    config = load(folder.config_path)
    weights = wanted.weights or config.ema.evaluated
    try:
        found = read_weights(folder.checkpoints_folder, which, World(0, 1, 0, torch.device("cpu")), weights)
    except ValueError as error:
        # Of the options that name a checkpoint and its weights elsewhere.
        sentence = str(error).replace(f"--checkpoint {which}", f"initial_weights.source={path}@{which}")
        raise ValueError(sentence.replace("--weights ", "initial_weights.weights=")) from error
    for sentence in found.passed_over:
        sys.stderr.write(f"note: passed over a damaged checkpoint: {sentence}\n")
    return _Source(found.tensors, config.model, found.step, weights)


def _parts(source: str) -> tuple[Path, str]:
    """Return the path and the checkpoint of a source such as runs/base@600."""
    run, at, which = source.rpartition("@")
    # A path may have an @ of its own: what exists is a path.
    return (Path(run), which) if at and not Path(source).exists() else (Path(source), NEWEST)


def _empty(config: PerceiverConfig) -> AnyNetwork:
    """Return the network without memory for its weights."""
    with torch.device("meta"):
        return new_network(config, seed=0)


def _line(what: str, listed: Sequence[str]) -> list[str]:
    if not listed:
        return []
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return [f"  {what}: {', '.join(map(printable, listed[:_SHOWN]))}{more}"]
