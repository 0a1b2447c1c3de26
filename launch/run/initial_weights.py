"""The weights from which a run starts, kept in its folder: what they came from may change or go while it trains.

RUN/initial_weights.safetensors   what the network takes, under its names
RUN/initial_weights.json          where it came from, its hash, and what was resized, initialised at random or not used
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from configs.run import RunConfig
from data_shards.files import atomic, typed_json
from data_shards.files.display import printable
from launch.lifecycle.run_folder import RunFolder, as_typed
from launch.run import weight_sources
from model.custom import new_network
from model.transfer import transfer
from trainer.checkpoint import tensor_file
from trainer.checkpoint.manifest import FileRecord, examine
from trainer.checkpoint.tensor_file import TensorFile
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
    """Names the weights of that step: trained, or ema for their moving average."""
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
    wanted = config.initial_weights
    if not wanted.source:
        _clear(folder)
        return
    source = weight_sources.read(wanted)
    # With the seed of the run: what no source fills is what a start without one would have drawn.
    network = new_network(config.model, seed=config.seed)
    meaning, notes = weight_sources.compared(source, config, list(network.state_dict()))
    try:
        found = transfer(network, source.tensors, source.grids, wanted, meaning)
    except ValueError as error:
        raise ValueError(f"{wanted.source}: {error}") from error
    # Only now: what the run has of another source stays where this one is refused.
    _clear(folder)
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
        *(printable(f"  {note}") for note in notes),
    ]
    sys.stderr.write("\n".join(sentences) + "\n")


def _clear(folder: RunFolder) -> None:
    """Remove what a run that has not begun was given before."""
    for path in (folder.initial_weights_path, folder.initial_weights_record_path):
        path.unlink(missing_ok=True)


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


def _line(what: str, listed: Sequence[str]) -> list[str]:
    if not listed:
        return []
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return [f"  {what}: {', '.join(map(printable, listed[:_SHOWN]))}{more}"]
