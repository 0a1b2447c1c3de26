"""Where initial weights come from: tensors, with what is known of the network and the data that they were learned with.

RUN, RUN@best, RUN@600   its network and data    classes and tokenizers are compared, too
FOLDER of an import      its network
FILE.safetensors         nothing
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from configs import plugins
from configs.network import network_config
from configs.resume import other_meaning
from configs.run import RunConfig, difference, load
from data_shards.files.quoting import shown
from data_shards.loading import streams
from data_shards.loading.dataset import are_numbers
from data_shards.loading.shard_folders import Places
from launch.lifecycle.run_folder import RunFolder
from launch.run.trained import class_names
from model.config.initial_weights import InitialWeightsConfig
from model.config.perceiver import PerceiverConfig
from model.custom import new_network
from model.outputs.label import LabelOutput, LabelsOutput
from model.transfer import Meaning, other_frequencies, table_grids
from trainer.checkpoint.choice import NEWEST, read_weights
from trainer.checkpoint.tensor_file import TensorFile
from trainer.distributed.world import World
from trainer.ema_config import TRAINED

_MADE_ANEW = frozenset({"dropout", "drop_path", "mask_tokens", "nested_latents", "num_classes", "num_latents"})
"""Keys of a network whose change shows in the shapes of its weights, or in none of them."""


@dataclass(frozen=True)
class Source:
    """Weights with their origin."""

    tensors: Mapping[str, Tensor]
    grids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The grid of each table, by the name of the tensor."""
    step: int | None = None
    """The step of the run's checkpoint; None of a file, or of a folder without steps."""
    weights: str = TRAINED
    """Names the weights of that step, trained or ema."""
    network: PerceiverConfig | None = None
    run: RunConfig | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The class names of a run by the label that is answered, as far as they are known."""


def read(wanted: InitialWeightsConfig) -> Source:
    """Return the weights that a configuration names; ValueError where there are none."""
    source = wanted.source
    path, which = _parts(source)
    if path.is_file() or (path / "model.safetensors").is_file():
        if wanted.weights:
            raise ValueError(
                f"initial_weights.weights={wanted.weights}: {source} has the weights of one network alone; leave it out"
            )
        return Source(TensorFile(path).read_all()) if path.is_file() else _of_import(path)
    folder = RunFolder(path.resolve())
    if not folder.exists:
        raise ValueError(
            f"initial_weights.source={source}: is no run, no folder with a model.safetensors, and no file; a "
            "checkpoint of a run is RUN@best or RUN@STEP, and `perceiver import` makes a folder of a network of "
            "another library"
        )
    # Its plug-ins may be others, under the same names.
    with plugins.kept():
        run = load(folder.config_path)
        names, _ = class_names.of(folder.path, run)
        grids = _grids(run.model)
    weights = wanted.weights or run.ema.evaluated
    try:
        found = read_weights(folder.checkpoints_folder, which, World(0, 1, 0, torch.device("cpu")), weights)
    except ValueError as error:
        # Of the options that name a checkpoint and its weights elsewhere.
        sentence = str(error).replace(f"--checkpoint {which}", f"initial_weights.source={path}@{which}")
        raise ValueError(sentence.replace("--weights ", "initial_weights.weights=")) from error
    for sentence in found.passed_over:
        sys.stderr.write(f"note: skipped a damaged checkpoint: {sentence}\n")
    return Source(found.tensors, grids, found.step, weights, run.model, run, names)


def compared(source: Source, config: RunConfig, own: Sequence[str]) -> tuple[Meaning, list[str]]:
    """Return what a source's tensors mean in a run's network, whose tensors have the names `own`, and notes on it."""
    if source.network is None:
        return Meaning(), []
    # Of an import only the network is known: the run's own data stand in for its, and differ in nothing.
    before = source.run or replace(config, model=source.network)
    changes = [line for line in difference(before, config) if not _is_one_sided(line)]
    keys = [key for key in other_meaning(changes) if key.rpartition(".")[2] not in _MADE_ANEW]
    foreign = dict(_of_other_ids(config, keys, own))
    rows: dict[str, Sequence[int]] = {}
    notes = []
    told = [line for line in changes if line.partition(":")[0] in keys]
    if told:
        notes.append(f"fits by its shapes, but was learned with another {'; '.join(told)}")
    for key, (old, new) in other_frequencies(source.network, config.model).items():
        notes.append(
            f"was learned with positions of other frequencies: {key} is {list(new)} here; {key}={list(old)} keeps them"
        )
    for name, output in config.model.answers().items():
        # By name: the number of a class is its place among those of one dataset.
        if not isinstance(output, LabelOutput | LabelsOutput) or not source.classes.get(output.target):
            continue
        there, here = tuple(source.classes[output.target]), _classes(config).get(output.target, ())
        heads = [each for each in own if f".{name}." in each and each.endswith(("logits.weight", "logits.bias"))]
        # Another number of classes shows in the shapes, and numbers for names say nothing.
        if there == here or len(there) != len(here) or any(map(are_numbers, (there, here))):
            continue
        if set(there) == set(here):
            rows |= {head: [there.index(each) for each in here] for head in heads}
            notes.append(f"classes of {name}: are in another order; its rows follow their names")
        else:
            # Under another name a row means another class, so the whole head is drawn anew. One example says why.
            place = next(place for place, pair in enumerate(zip(there, here, strict=True)) if len(set(pair)) > 1)
            why = f"class {place} is {shown(there[place])} there, {shown(here[place])} here"
            foreign |= dict.fromkeys(heads, why)
    return Meaning(foreign, rows), notes


def _of_import(path: Path) -> Source:
    if not (path / "config.yaml").is_file():
        raise ValueError(
            f"initial_weights.source={path}: has a model.safetensors and no config.yaml; make a folder with both by "
            f"`perceiver import {path} NEW`, or name the file itself if its tensors have the names of our checkpoints"
        )
    network = network_config(path / "config.yaml")
    return Source(TensorFile(path / "model.safetensors").read_all(), _grids(network), network=network)


def _parts(source: str) -> tuple[Path, str]:
    """Return the path and the checkpoint of a source such as runs/base@600."""
    run, at, which = source.rpartition("@")
    # A path may have an @ of its own: what exists is a path.
    return (Path(run), which) if at and not Path(source).exists() else (Path(source), NEWEST)


def _grids(config: PerceiverConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):  # no memory for the weights
        return table_grids(new_network(config, seed=0))


def _is_one_sided(change: str) -> bool:
    """Return whether a line of `difference` is of a key that one of the two lacks, such as another input's."""
    return ": None -> " in change or change.endswith(" -> None")


def _of_other_ids(config: RunConfig, keys: Sequence[str], own: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the tensors with a row for each id of an input that has another tokenizer, with the reason."""
    for key in keys:
        # With full stops to spare, so that a key of any depth has a third part.
        _, _, name, *_ = f"{key}...".split(".")
        if not key.startswith("data.inputs."):
            continue
        answers = [of for of, each in config.model.answers().items() if name in (each.continues(), _target(each))]
        beginnings = (f"inputs.adapters.{name}.embedding.", *(f"decoder.heads.{each}." for each in answers))
        yield from ((each, "its ids are those of another tokenizer") for each in own if each.startswith(beginnings))


def _target(output: object) -> str:
    return str(getattr(output, "target", ""))


def _classes(config: RunConfig) -> Mapping[str, Sequence[str]]:
    return streams.all_label_names(config.data, Places(config.data))
